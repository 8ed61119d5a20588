package core

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/secret"
	"github.com/trunkline-sms/trunkline/streams"
)

func admit(t *testing.T, c *Core, name string, password secret.String) error {
	t.Helper()
	_, _, err := c.AdmitLogin(t.Context(), Credentials{Name: name, Password: password, From: home}, Posting)
	return err
}

// A login that nobody has is refused each time, whatever its password is, and one that is too long is not even looked at.
func TestCore_AdmitLogin_Nobody(t *testing.T) {
	c := newCore(t)
	putAccount(t, c, shopLogin(t))
	for range 2 { // the second time it is remembered
		if err := admit(t, c, "stranger", "nobody"); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("the password of nobody: got %v", err)
		}
	}
	before := len(c.passwords.right) + len(c.passwords.wrong)
	if err := admit(t, c, strings.Repeat("x", maxLogin+1), "correct horse"); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("a login that is too long: got %v", err)
	}
	if got := len(c.passwords.right) + len(c.passwords.wrong); got != before {
		t.Error("the password of a login that is too long was checked and kept")
	}
}

// A password that was checked is not checked again for ten minutes, right or wrong.
func TestPasswords_Remembered(t *testing.T) {
	now := time.Now()
	p := newPasswords(func() time.Time { return now })
	hash := hashed(t, "correct horse")
	wasHere := func() bool { return true }
	check := func(password secret.String) error {
		return p.check(t.Context(), Credentials{Name: "shop", Password: password, From: home}, hash, wasHere)
	}
	if err := check("correct horse"); err != nil {
		t.Fatal(err)
	}
	if err := check("wrong"); !fault.Is(err, fault.Unauthenticated) {
		t.Fatalf("a wrong password: got %v", err)
	}
	// From now on no check finds a place.
	p.known.waiting, p.strangers.waiting = maxChecks, maxChecks
	if err := check("correct horse"); err != nil {
		t.Errorf("got %v, want no second check", err)
	}
	if err := check("wrong"); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("got %v, want no second check of a wrong one", err)
	}
	if now = now.Add(wrongFor); !fault.Is(check("wrong"), fault.Unavailable) {
		t.Error("a wrong one is not checked again after a minute")
	}
	if now = now.Add(verifiedFor - wrongFor); !fault.Is(check("correct horse"), fault.Unavailable) {
		t.Error("a right one is not checked again after ten minutes")
	}
}

// Who leaves the line leaves nothing behind in it, and the next one comes after a rest.
func TestLine_Leaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(1, semaphore.NewWeighted(1))
		leave, err := l.enter("one")
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		leave(time.Second)
		if l.waiting != 0 || len(l.of) != 0 {
			t.Errorf("got %d waiting, of %d, want none", l.waiting, len(l.of))
		}
		if leave, err = l.enter("another"); err != nil || time.Since(begun) != time.Second {
			t.Errorf("got %v after %v, want a place after a second", err, time.Since(begun))
		}
		leave(0)
		synctest.Wait()
	})
}

// However many passwords are checked, others find a processor.
func TestPasswords_LeaveProcessors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPasswords(time.Now)
		half := max(runtime.GOMAXPROCS(0)/2, 1)
		var mu sync.Mutex
		at, most, done := 0, 0, 0
		for i := range 4 * half {
			for _, l := range []*line{p.strangers, p.known} {
				go func() {
					leave, err := l.enter(fmt.Sprint(i))
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					at++
					most = max(most, at)
					mu.Unlock()
					time.Sleep(50 * time.Millisecond) // a check
					mu.Lock()
					at--
					done++
					mu.Unlock()
					leave(0)
				}()
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if most != half || done != 8*half {
			t.Errorf("got %d checks at a time and %d in all, want %d and %d", most, done, half, 8*half)
		}
	})
}

// A login is whose account has it last.
func TestCore_AdmitLogin_Moved(t *testing.T) {
	c := newCore(t)
	first, second := shopLogin(t), shopLogin(t)
	second.ID, second.Name, second.Devices = streams.AccountIDOf("second"), "second", nil
	putAccount(t, c, first)
	putAccount(t, c, second)
	first.Login, first.Password, first.Devices = "", "", nil
	putAccount(t, c, first)
	if got := admitted(t, c, "shop", "correct horse"); got.Account.ID != second.ID {
		t.Errorf("got account %s, want the second", got.Account.Name)
	}
}

// Nobody is let in before it is known who may be, and which sessions have ended.
func TestCore_NotLoaded(t *testing.T) {
	c := newCore(t)
	closed := make(chan struct{})
	close(closed)
	for what, half := range map[string]*Core{
		"accounts": {accounts: &accounts{followed: followed{loaded: closed}}, sessions: newSessions(), metrics: c.metrics},
		"sessions": {accounts: newAccounts(c.log), sessions: &sessions{followed: followed{loaded: closed}}, metrics: c.metrics},
	} {
		if half.Loaded() {
			t.Errorf("loaded by its %s alone", what)
		}
		if _, _, err := half.AdmitLogin(t.Context(), Credentials{Name: "shop"}, Posting); !fault.Is(err, fault.Unavailable) {
			t.Errorf("with its %s alone: got %v", what, err)
		}
	}
}

// Marks of days that are over are dropped on the first of a day.
func TestMarks_Note(t *testing.T) {
	m, begun := marks{}, time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	id := streams.AccountIDOf("shop")
	m.note("renewed."+id.String()+".one", begun)
	m.note("revoked."+id.String()+".one", begun.Add(31*day))
	if got := m.of(id, begun.Add(31*day)); got != 1 || len(m[id.String()]) != 1 {
		t.Errorf("got %d marks of %d days, want one of one", got, len(m[id.String()]))
	}
}
