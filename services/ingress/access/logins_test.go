package access

import (
	"fmt"
	"net/netip"
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

func admit(t *testing.T, c *Access, name string, password secret.String) error {
	t.Helper()
	_, _, err := c.AdmitLogin(t.Context(), Credentials{Name: name, Password: password, From: home}, Posting)
	return err
}

// A login that nobody has is refused each time, whatever its password is, and one that is too long is not even looked at.
func TestAdmitLogin_Nobody(t *testing.T) {
	c := newAccess(t)
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
func TestAdmitLogin_Moved(t *testing.T) {
	c := newAccess(t)
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
func TestNotLoaded(t *testing.T) {
	c := newAccess(t)
	for what, half := range map[string]*Access{
		"accounts": {accounts: c.accounts, sessions: newSessions()},
		"sessions": {accounts: newAccounts(c.log), sessions: c.sessions},
	} {
		if half.Loaded() {
			t.Errorf("loaded by its %s alone", what)
		}
		if _, _, err := half.AdmitLogin(t.Context(), Credentials{Name: "shop"}, Posting); !fault.Is(err, fault.Unavailable) {
			t.Errorf("with its %s alone: got %v", what, err)
		}
	}
}

func TestAdmitLogin(t *testing.T) {
	c := newAccess(t)
	account := shopLogin(t)
	putAccount(t, c, account)
	if got := admitted(t, c, "shop", "correct horse"); got.Account.ID != account.ID || got.Device != 0 || got.Login != "shop" || !got.Subscribed {
		t.Errorf("got %+v", got)
	}
	if got := admitted(t, c, "Pixel", "battery staple"); got.Account.ID != account.ID || got.Device != streams.DeviceIDOf(account.ID, "Pixel") {
		t.Errorf("a phone's own: got %+v", got)
	}
	for _, wrong := range []struct {
		name     string
		password secret.String
	}{{"shop", "battery staple"}, {"Pixel", "correct horse"}, {"nobody", "correct horse"}, {"nobody", "nobody"}, {"", ""}, {"shop", ""}} {
		if _, _, err := c.AdmitLogin(t.Context(), Credentials{Name: wrong.name, Password: wrong.password, From: home}, Posting); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s: got %v, want a refusal", wrong.name, err)
		}
	}
	account.Suspended = true
	putAccount(t, c, account)
	if _, _, err := c.AdmitLogin(t.Context(), Credentials{Name: "shop", Password: "correct horse", From: home}, Posting); !fault.Is(err, fault.Forbidden) {
		t.Errorf("suspended: got %v", err)
	}
	account.Suspended, account.Password, account.Devices = false, hashed(t, "another one"), nil
	putAccount(t, c, account)
	for name, password := range map[string]secret.String{"shop": "correct horse", "Pixel": "battery staple"} {
		if _, _, err := c.AdmitLogin(t.Context(), Credentials{Name: name, Password: password, From: home}, Posting); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s, which was changed: got %v, want a refusal", name, err)
		}
	}
	admitted(t, c, "shop", "another one")
}

// A password costs a processor for a while, so it is checked once for many requests, and wrong ones not without end.
func TestAdmitLogin_ChecksOnce(t *testing.T) {
	c := newAccess(t)
	putAccount(t, c, shopLogin(t))
	for range 1000 {
		admitted(t, c, "shop", "correct horse")
	}
	if got := len(c.passwords.right) + len(c.passwords.wrong); got != 1 {
		t.Errorf("got %d checks of a password, want 1", got)
	}
	for range 1000 {
		if _, _, err := c.AdmitLogin(t.Context(), Credentials{Name: "shop", Password: "wrong", From: home}, Posting); !fault.Is(err, fault.Unauthenticated) {
			t.Fatalf("a wrong password: got %v", err)
		}
	}
	if got := len(c.passwords.right) + len(c.passwords.wrong); got != 2 {
		t.Errorf("got %d checks with a wrong password, want 2", got)
	}
	for i := range 1000 {
		guess := secret.String(strings.Repeat("x", 1+i%60) + string(rune('a'+i%20)))
		if _, _, err := c.AdmitLogin(t.Context(), Credentials{"shop", guess, network(1)}, Posting); !fault.Is(err, fault.Unauthenticated) && !fault.Is(err, fault.RateLimited) {
			t.Fatalf("a guess: got %v", err)
		}
	}
	if got := len(c.passwords.wrong); got > 1+failuresAMinute {
		t.Errorf("got %d checks of guesses, want at most %d a minute", got, failuresAMinute)
	}
}

// network is one of many networks.
func network(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), 32)
}

// Who guesses a password locks nobody out who has it: neither from where the owner is known, also after a restart, nor
// from another network; and who guesses goes on to be refused.
func TestAdmitLogin_GuessesLockNobodyOut(t *testing.T) {
	c := newAccess(t)
	putAccount(t, c, shopLogin(t))
	admitted(t, c, "shop", "correct horse")
	try := func(c *Access, password secret.String, from netip.Prefix) error {
		_, _, err := c.AdmitLogin(t.Context(), Credentials{"shop", password, from}, Posting)
		return err
	}
	guess := func(c *Access, from netip.Prefix) (refused int) {
		for i := range 2 * failuresAMinute {
			if fault.Is(try(c, secret.String(fmt.Sprint("guess", i, from)), from), fault.RateLimited) {
				refused++
			}
		}
		return refused
	}
	for i := range 20 {
		if refused := guess(c, network(i)); refused < failuresAMinute-1 {
			t.Errorf("a stranger: got %d guesses refused, want %d", refused, failuresAMinute)
		}
	}
	clear(c.passwords.right) // the ten minutes are over
	for what, from := range map[string]netip.Prefix{"where he is known": home, "elsewhere": network(1000)} {
		if err := try(c, "correct horse", from); err != nil {
			t.Errorf("the owner, %s: got %v", what, err)
		}
		clear(c.passwords.right)
	}
	// One in the owner's own network may guess there, and does not lock him out either.
	guess(c, home)
	if err := try(c, "correct horse", home); err != nil {
		t.Errorf("the owner, beside one who guesses in his network: got %v", err)
	}
	c.networks.store(t.Context())
	again := newAccessOn(t, c.bus)
	guess(again, home)
	if err := try(again, "correct horse", home); err != nil {
		t.Errorf("the owner, at another ingress: got %v", err)
	}
	if refused := guess(again, network(2000)); refused < failuresAMinute-1 {
		t.Errorf("a stranger at another ingress: got %d guesses refused, want %d", refused, failuresAMinute)
	}
}

// What is remembered of passwords has a bound, and wrong ones do not push out right ones.
func TestPasswords_Bound(t *testing.T) {
	p := newPasswords(time.Now)
	for i := range maxVerified + 10 {
		p.remember([32]byte{byte(i), byte(i >> 8), 1}, "hash", true)
		p.remember([32]byte{byte(i), byte(i >> 8), 2}, "hash", false)
		p.failed(guesser{network(i), "shop"})
	}
	if len(p.right) != maxVerified || len(p.wrong) != maxVerified || len(p.failures) != maxVerified {
		t.Errorf("got %d right and %d wrong passwords and %d guessers in memory, want %d each", len(p.right), len(p.wrong), len(p.failures), maxVerified)
	}
}

// Of the places of a line nobody has more than he leaves to others, and strangers hold up nobody who is known.
func TestPasswords_Line(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPasswords(time.Now)
		hash := hashed(t, "password")
		busy := max(runtime.GOMAXPROCS(0)/4, 1)
		if !p.strangers.slots.TryAcquire(int64(busy)) { // a check that goes on
			t.Fatal("no processor is free")
		}
		var crowd sync.WaitGroup
		answers := map[netip.Prefix]int{}
		var mu sync.Mutex
		try := func(from netip.Prefix, n int, known bool) error {
			return p.check(t.Context(), Credentials{"shop", secret.String(fmt.Sprint("guess", from, n)), from}, hash, func() bool { return known })
		}
		// As many as it has places come from one network, then from another, and then one each.
		for i := range 4 * maxChecks {
			from := network(max(0, i-2*maxChecks+1))
			if i >= maxChecks && i < 2*maxChecks {
				from = network(10_000)
			}
			crowd.Go(func() {
				if err := try(from, i, false); fault.Is(err, fault.Unauthenticated) {
					mu.Lock()
					answers[from]++
					mu.Unlock()
				} else if !fault.Is(err, fault.Unavailable) {
					t.Errorf("got %v", err)
				}
			})
			synctest.Wait()
		}
		if err := try(home, 0, true); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("who is known, beside a crowd of strangers: got %v, want his password checked", err)
		}
		p.strangers.slots.Release(int64(busy))
		crowd.Wait()
		if a, b, all := answers[network(0)], answers[network(10_000)], len(answers); a != maxChecks/2 || b != maxChecks/4 || all < 10 {
			t.Errorf("got %d checked of the first, %d of the second, and %d networks served, want %d, %d and more than 10", a, b, all, maxChecks/2, maxChecks/4)
		}
	})
}
