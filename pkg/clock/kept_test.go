package clock_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/clock/clocktest"
)

// used makes a data directory that a server used until now.
func used(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	clock.New(clock.Options{}).Keep(ctx, dir)
	if got := kept(t, dir); got != 0 {
		t.Fatalf("the time is kept as %v from now", got)
	}
	return dir
}

// kept is how far the time that a directory keeps is from the right one.
func kept(t *testing.T, dir string) time.Duration {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, clock.KeptFile))
	if err != nil {
		t.Fatal(err)
	}
	at, err := time.Parse(time.RFC3339, strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return wrong(at)
}

// right is what an operator makes who says that the clock is right.
func right(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, clock.RightFile)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// awaiting runs Await on a machine whose clock is wrong, and gives what it gives.
func awaiting(t *testing.T, dir string, o clock.Options) <-chan clock.Options {
	t.Helper()
	got := make(chan clock.Options, 1)
	go func() {
		o, err := clock.Await(t.Context(), dir, o)
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		got <- o
	}()
	synctest.Wait()
	return got
}

func waits(t *testing.T, got <-chan clock.Options) {
	t.Helper()
	select {
	case <-got:
		t.Fatal("it did not wait")
	default:
	}
}

func TestAwait_ClockAhead(t *testing.T) {
	for _, ahead := range []time.Duration{clock.Most + time.Minute, 32 * day, 400 * day} {
		synctest.Test(t, func(t *testing.T) {
			dir := used(t)
			said, log := observer.New(zap.WarnLevel)
			machine := &clocktest.Stepped{}
			machine.Step(ahead)
			got := awaiting(t, dir, clock.Options{Now: machine.Now, Log: zap.New(said)})
			time.Sleep(2 * clock.Settles) // time alone does not help
			synctest.Wait()
			waits(t, got)
			if n := log.Len(); n != 1 || !strings.Contains(log.All()[0].Message, "--clock-is-right") {
				t.Errorf("got %d lines, want one that says what to do", n)
			}
			machine.Right()
			o := <-got
			if wrong := wrong(o.Known); (wrong+2*clock.Settles).Abs() > 2*time.Second || o.Right {
				t.Errorf("known is %v from now, right: %v", wrong, o.Right)
			}
			if at := wrong(clock.New(o).Now()); at != 0 {
				t.Errorf("begins %v from the right time", at)
			}
		})
	}
}

func TestAwait_ClockThatIsRight(t *testing.T) {
	for name, say := range map[string]func(t *testing.T, dir string, o *clock.Options){
		"flag":              func(_ *testing.T, _ string, o *clock.Options) { o.Right = true },
		"file":              func(t *testing.T, dir string, _ *clock.Options) { right(t, dir) },
		"nothing is known":  func(t *testing.T, dir string, _ *clock.Options) { _ = os.Remove(filepath.Join(dir, clock.KeptFile)) },
		"off for four days": func(*testing.T, string, *clock.Options) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := used(t)
				off := 60 * day
				if strings.HasPrefix(name, "off") {
					off = clock.Most
				}
				time.Sleep(off)
				machine := &clocktest.Stepped{}
				o := clock.Options{Now: machine.Now, Log: zap.NewNop()}
				say(t, dir, &o)
				o, err := clock.Await(t.Context(), dir, o)
				if err != nil {
					t.Fatal(err)
				}
				c := clock.New(o)
				if off == clock.Most {
					time.Sleep(clock.Settles)
				}
				if got := read(c); got != (reading{}) {
					t.Errorf("got %+v, want no doubt", got)
				}
				if _, err := os.Stat(filepath.Join(dir, clock.RightFile)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the word of an operator holds for the next start too: %v", err)
				}
			})
		})
	}
}

// An operator's word comes while a start waits.
func TestAwait_OperatorSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := used(t)
		time.Sleep(60 * day)
		got := awaiting(t, dir, clock.Options{Log: zap.NewNop()})
		waits(t, got)
		right(t, dir)
		if o := <-got; !o.Right {
			t.Error("it did not hear that the clock is right")
		}
	})
}

func TestAwait_Stopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := used(t)
		time.Sleep(60 * day)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := clock.Await(ctx, dir, clock.Options{Log: zap.NewNop()}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the end of the context", err)
		}
	})
}

// What cannot be read is no reason to believe anything.
func TestAwait_DamagedFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, clock.KeptFile), []byte("tomorrow"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := clock.Await(t.Context(), dir, clock.Options{Log: zap.NewNop()}); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v, want an error that names the file", err)
	}
}

// What is kept is never ahead of what was sure, and no older than a minute.
func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		machine := &clocktest.Stepped{}
		c := clock.New(clock.Options{Now: machine.Now})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			c.Keep(ctx, dir)
			close(ended)
		}()
		for range 10 {
			time.Sleep(17 * time.Second)
			synctest.Wait()
			if got := kept(t, dir); got > 0 || got < -61*time.Second {
				t.Errorf("the time is kept as %v from now", got)
			}
		}
		machine.Step(400 * day)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if got := kept(t, dir); got > 0 || got < -61*time.Second {
			t.Errorf("with a clock that is ahead the time is kept as %v from now", got)
		}
		path := right(t, dir)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the word of an operator was not heard: %v", err)
		}
		if got := read(c); got.doubt != 0 || got.now != 400*day {
			t.Errorf("got %+v, want what an operator said is right", got)
		}
		time.Sleep(30 * time.Second)
		stop()
		<-ended
		if got := kept(t, dir); got != 400*day {
			t.Errorf("at the stop the time is kept as %v from now", got)
		}
	})
}
