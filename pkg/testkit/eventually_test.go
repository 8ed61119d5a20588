package testkit

import (
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// failing is a test that only notes that it has failed.
type failing struct {
	testing.TB
	text string
}

func (f *failing) Helper() {}

func (f *failing) Fatalf(format string, _ ...any) {
	f.text = format
	runtime.Goexit()
}

func TestEventually(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		Eventually(t, "a second is over", func() bool { return time.Since(begun) >= time.Second })
		if took := time.Since(begun); took != time.Second {
			t.Errorf("it returned after %v, want a second", took)
		}
	})
}

func TestEventually_Never(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun, f := time.Now(), &failing{TB: t}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			Eventually(f, "never", func() bool { return false })
			f.text = "it returned"
		}()
		<-ended
		if took := time.Since(begun); took != Patience || !strings.Contains(f.text, "not within") {
			t.Errorf("it ended after %v with %q, want a failure after %v", took, f.text, Patience)
		}
	})
}
