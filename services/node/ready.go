package node

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/httpx"
)

const (
	readyFirst = 10 * time.Millisecond // doubled with each question
	readyMost  = 500 * time.Millisecond
	// A start after a crash folds the streams first: say what it waits for.
	readyTell = 10 * time.Second
)

// awaitReady asks the server itself until it says that every part works. It is
// false when ctx ended before.
func awaitReady(ctx context.Context, client *http.Client, url string, log *zap.Logger) bool {
	tell := time.Now().Add(readyTell)
	pause := time.NewTimer(0)
	defer pause.Stop()
	for next := readyFirst; ; next = min(2*next, readyMost) {
		select {
		case <-ctx.Done():
			return false
		case <-pause.C:
		}
		err := askReady(ctx, client, url)
		if err == nil {
			return true
		}
		if now := time.Now(); now.After(tell) && ctx.Err() == nil {
			log.Warn("not ready yet", zap.Error(err))
			tell = now.Add(readyTell)
		}
		pause.Reset(next)
	}
}

// askReady is nil when the server is ready, else it names the checks that fail.
func askReady(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/health/ready", nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var health struct {
		Checks map[string]httpx.Check `json:"checks"`
	}
	if err := json.NewDecoder(response.Body).Decode(&health); err != nil {
		return fmt.Errorf("read health: %w", err)
	}
	var failing []string
	for name, check := range health.Checks {
		// Where parts run apart, some may be missing; here all of them run.
		if check.Status == httpx.Fail || check.Status == httpx.Warn && strings.HasSuffix(name, ":answer") {
			failing = append(failing, name+": "+check.Description)
		}
	}
	if len(failing) == 0 && response.StatusCode == http.StatusOK {
		return nil
	}
	slices.Sort(failing)
	return fmt.Errorf("failing checks: %s", strings.Join(failing, ", "))
}

// reachable gives an address that a client on this machine can use: a listener
// on every network is reached at the loopback.
func reachable(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return addr.String()
	}
	if tcp.IP.IsUnspecified() {
		return fmt.Sprintf("127.0.0.1:%d", tcp.Port)
	}
	return tcp.String()
}
