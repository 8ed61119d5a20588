package core

import (
	"crypto/subtle"
	"encoding/base64"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/blowfish" //nolint:staticcheck // bcrypt is made of it

	"github.com/trunkline-sms/trunkline/pkg/secret"
)

const (
	// roundsAtATime is how many rounds of bcrypt follow each other without a rest: about a millisecond.
	roundsAtATime = 16
	// restBetween is how long a check rests then. Used up by whoever has a password checked, who waits so much longer.
	restBetween = time.Millisecond
)

// The parts of a hash of bcrypt, $2a$10$, salt and sum, in its own alphabet.
const (
	saltAt   = len("$2a$10$")
	sumAt    = saltAt + 22
	hashEnds = sumAt + 31
	sumBytes = 23
)

var alphabet = base64.NewEncoding("./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789").WithPadding(base64.NoPadding)

// matches says whether a hash of bcrypt is of that password. It takes a processor for a twentieth of a second, and leaves it
// to others as long meanwhile. The package bcrypt would keep it: with a check on each processor, every step of every other
// request would wait until the runtime interrupts one of them, ten milliseconds later.
func matches(hash string, password secret.String) bool {
	cost, err := bcrypt.Cost([]byte(hash))
	if err != nil || len(hash) != hashEnds {
		return false
	}
	salt, err := alphabet.DecodeString(hash[saltAt:sumAt])
	if err != nil {
		return false
	}
	key := append([]byte(password.Reveal()), 0)
	c, err := blowfish.NewSaltedCipher(key, salt)
	if err != nil {
		return false
	}
	for round := range 1 << cost {
		blowfish.ExpandKey(key, c)
		blowfish.ExpandKey(salt, c)
		if round%roundsAtATime == 0 {
			time.Sleep(restBetween)
		}
	}
	sum := []byte("OrpheanBeholderScryDoubt")
	for block := 0; block < len(sum); block += blowfish.BlockSize {
		for range 64 {
			c.Encrypt(sum[block:block+blowfish.BlockSize], sum[block:block+blowfish.BlockSize])
		}
	}
	return subtle.ConstantTimeCompare([]byte(alphabet.EncodeToString(sum[:sumBytes])), []byte(hash[sumAt:])) == 1
}
