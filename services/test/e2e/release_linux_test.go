package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/testkit"
	"github.com/trunkline-sms/trunkline/pkg/testkit/apktest"
)

var crowdFor = flag.Duration("crowd", 0, "how long senders post beside downloads, and without them, each of four times; 0: not at all")

const (
	crowdSize  = 60 << 20 // bytes of the file, in the long form
	crowdCount = 50       // downloads at a time
	crowdLimit = 64       // most MiB that they may take together
)

// tunedHost is a process with settings of its own.
type tunedHost struct {
	*processHost
	settings []string
}

func (h *tunedHost) start(t *testing.T) started {
	t.Helper()
	cmd := h.serve(t)
	cmd.Env = append(cmd.Env, h.settings...)
	begun, err := h.ready(h.begin(t, cmd))
	if err != nil {
		t.Fatalf("the server did not start: %v; its log is %s", err, h.log.Name())
	}
	return begun
}

func tuned(settings ...string) newHost {
	return func(dir string, shards int) host {
		return &tunedHost{process(dir, shards).(*processHost), settings}
	}
}

// fetchAll downloads the active release so many times at once, and gives how many bytes came. It ends early with ctx.
func (s *trunkline) fetchAll(ctx context.Context, count int, check func(*http.Response, io.Reader) error) int64 {
	s.Helper()
	var all sync.WaitGroup
	var got atomic.Int64
	for range count {
		all.Go(func() {
			for again := true; again; again = check == nil {
				request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/download/app.apk", nil)
				if err != nil {
					s.Error(err)
					return
				}
				response, err := s.client.Do(request)
				if err != nil {
					if ctx.Err() == nil {
						s.Error(err)
					}
					return
				}
				if check != nil {
					err = check(response, response.Body)
				} else {
					var n int64
					n, err = io.Copy(io.Discard, response.Body)
					got.Add(n)
				}
				_ = response.Body.Close()
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					s.Error(err)
				}
			}
		})
	}
	all.Wait()
	return got.Load()
}

// Many downloads of a large file at once take little memory, and each gets all of its bytes.
func TestRelease_CrowdMemory(t *testing.T) {
	s, pid := launchMeasured(t, tuned("TRUNKLINE_INGRESS_DOWNLOAD_RATE=0"))
	content := s.publish(apktest.App{Padding: many(20<<20, crowdSize)}, "--activate")
	uploaded := memory(t, pid, "RssAnon")
	s.Stop()
	s.Start() // nothing is copied yet
	pid = s.pid()
	idle := memory(t, pid, "RssAnon")
	sum := sha256.Sum256(content)
	want := hex.EncodeToString(sum[:])

	most, copying, watching := 0, 0, make(chan struct{})
	stop, copied := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watching)
		look := time.NewTicker(10 * time.Millisecond)
		defer look.Stop()
		for {
			select {
			case <-look.C:
				most = max(most, memory(t, pid, "RssAnon"))
			case <-copied:
				copied, copying = nil, most
			case <-stop:
				return
			}
		}
	}()
	s.download("/download/app.apk", "Range", "bytes=0-0") // so that it is copied
	close(copied)
	begun := time.Now()
	s.fetchAll(t.Context(), crowdCount, func(r *http.Response, body io.Reader) error {
		h := sha256.New()
		if _, err := io.Copy(h, body); err != nil {
			return err
		}
		if got := hex.EncodeToString(h.Sum(nil)); r.StatusCode != http.StatusOK || got != want {
			return fmt.Errorf("got %d and other bytes", r.StatusCode)
		}
		return nil
	})
	took := time.Since(begun)
	close(stop)
	<-watching
	t.Logf("%d downloads of %d MiB: the server takes %d MiB at most, %d while it was copied, %d before, and took %d after the upload; %.0f MiB/s, on %s",
		crowdCount, len(content)>>20, most, copying, idle, uploaded, float64(crowdCount*len(content)>>20)/took.Seconds(), load(t))
	if most > idle+crowdLimit {
		t.Errorf("the server takes %d MiB, %d before: want at most %d more", most, idle, crowdLimit)
	}
	testkit.Eventually(t, "all are counted", func() bool { return s.downloads() == crowdCount })
}

// Senders post beside many downloads, and without them, in turns. How much is accepted is for a person to read.
func TestRelease_CrowdSenders(t *testing.T) {
	if *crowdFor == 0 {
		t.Skip("it is a measurement: -crowd 4s")
	}
	for _, settings := range [][]string{nil, {"TRUNKLINE_INGRESS_DOWNLOAD_RATE=0"}} {
		s := launch(t, tuned(settings...), 1)
		s.publish(apktest.App{Padding: crowdSize}, "--activate")
		s.download("/download/app.apk", "Range", "bytes=0-0") // so that it is copied
		f := newSwell(s)
		f.offer(64, *crowdFor, 0)
		var alone, beside float64
		for range 4 {
			quiet := f.offer(64, *crowdFor, 0)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan int64)
			go func() { done <- s.fetchAll(ctx, crowdCount, nil) }()
			busy := f.offer(64, *crowdFor, 0)
			cancel()
			bytes := <-done
			t.Logf("with %v alone %v; beside %d downloads, of %.0f MiB/s together, %v", settings, quiet, crowdCount, float64(bytes>>20)/busy.took.Seconds(), busy)
			alone += float64(quiet.accepted.TotalCount()) / quiet.took.Seconds()
			beside += float64(busy.accepted.TotalCount()) / busy.took.Seconds()
			if busy.accepted.TotalCount() == 0 || bytes == 0 {
				t.Errorf("got %v and %d bytes, want both served", busy, bytes)
			}
		}
		t.Logf("with %v: %.0f posts a second alone, %.0f beside downloads: %+.0f %%, on %s", settings, alone/4, beside/4, 100*(beside/alone-1), load(t))
		s.Stop()
	}
}
