package core

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/trunkline-sms/trunkline/pkg/secret"
)

// A password is judged as bcrypt judges it.
func TestMatches(t *testing.T) {
	passwords := []string{"", "password", "correct horse battery", "pässwörd \u20ac", strings.Repeat("x", 71), strings.Repeat("x", 72)}
	for _, of := range passwords {
		hash, err := bcrypt.GenerateFromPassword([]byte(of), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		for _, said := range append(passwords, of+"x", strings.ToUpper(of), of+"\x00") {
			want := bcrypt.CompareHashAndPassword(hash, []byte(said)) == nil
			if got := matches(string(hash), secret.String(said)); got != want {
				t.Errorf("password %q against the hash of %q: got %v, want %v", said, of, got, want)
			}
		}
		for end := range hash {
			if matches(string(hash[:end]), secret.String(of)) {
				t.Errorf("the first %d bytes of a hash match", end)
			}
		}
		if damaged := string(hash[:10]) + "!" + string(hash[11:]); matches(damaged, secret.String(of)) {
			t.Error("a hash that is damaged matches")
		}
	}
}

// A check rests between its steps, so that others come in.
func TestMatches_Rests(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("password"), bcrypt.DefaultCost)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now() // of a clock that goes on only while all rest
		if !matches(string(hash), "password") {
			t.Error("the right password does not match")
		}
		if got, want := time.Since(begun), time.Duration(1<<bcrypt.DefaultCost/roundsAtATime)*restBetween; got != want {
			t.Errorf("it rested for %v in all, want %v", got, want)
		}
	})
}
