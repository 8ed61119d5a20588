package fleet

import (
	"sync"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

const (
	// A phone that waits for work calls at least every 30 s.
	//
	// Limit: a phone is online for 90 s after its last call. Beyond it: it is not.
	// Used up by: a phone that does not call. Hurts: only that phone. Test: TestPresence_Online.
	onlineFor = 90 * time.Second
	// Limit: an ingress has the last calls of 1,048,576 phones in memory. Beyond it: other phones count as not online.
	// Used up by: a thousand accounts with a thousand phones each. Hurts: accounts whose phones call after that.
	// Test: TestPresence_Bound.
	maxPresent = 1 << 20
	// Limit: an account without a phone online is looked through once in 1 s. Beyond it: what was found counts.
	// Used up by: senders who ask again and again. Hurts: nobody: the answer is that much older.
	// Test: TestDeviceOnline_Remembers.
	lookAgain = time.Second
)

// presence knows when devices called last, here or at another ingress. It is swept by the time of the calls and no cache: one
// that counts as online is not forgotten because another calls.
type presence struct {
	now func() time.Time

	mu    sync.Mutex
	seen  map[streams.DeviceID]time.Time
	news  map[streams.DeviceID]time.Time // calls that other ingresses have not been told of
	swept time.Time
	last  map[streams.AccountID]lastOnline
}

// lastOnline is what was found when an account's phones were looked through.
type lastOnline struct {
	device streams.DeviceID // one that was online; zero: none was
	at     time.Time
}

func newPresence(now func() time.Time) *presence {
	return &presence{
		now: now, seen: map[streams.DeviceID]time.Time{}, news: map[streams.DeviceID]time.Time{},
		last: map[streams.AccountID]lastOnline{},
	}
}

// called notes a call here.
func (p *presence) called(device streams.DeviceID) {
	now := p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.note(device, now) {
		p.news[device] = now
	}
}

// heard notes a call at another ingress.
func (p *presence) heard(c request.Contact) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.note(c.Device, clock.Earlier(c.At, p.now())) // the other ingress's clock may be ahead
}

// note notes a call, and says whether it is news and there was room for it. The caller holds the lock.
func (p *presence) note(device streams.DeviceID, at time.Time) bool {
	if now := p.now(); now.Sub(p.swept) >= onlineFor {
		for d, at := range p.seen {
			if now.Sub(at) >= onlineFor {
				delete(p.seen, d)
			}
		}
		p.swept = now
	}
	last, ok := p.seen[device]
	if !ok && len(p.seen) >= maxPresent || at.Before(last) {
		return false
	}
	p.seen[device] = at
	return true
}

// takeNews lists the calls at this ingress since takeNews was called last.
func (p *presence) takeNews() []request.Contact {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]request.Contact, 0, len(p.news))
	for device, at := range p.news {
		all = append(all, request.Contact{Device: device, At: at.UTC()})
	}
	clear(p.news)
	return all
}

// online says whether a device called within onlineFor.
func (p *presence) online(device streams.DeviceID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.seen[device]
	return ok && p.now().Sub(at) < onlineFor
}

// remembered says whether a phone of the account is online, if that is known
// without looking through them.
func (p *presence) remembered(account streams.AccountID) (online, known bool) {
	p.mu.Lock()
	last := p.last[account]
	p.mu.Unlock()
	online = p.online(last.device)
	return online, online || p.now().Sub(last.at) < lookAgain
}

// look says whether one of an account's phones is online, and remembers it.
func (p *presence) look(account streams.AccountID, all []streams.Device) bool {
	found := lastOnline{at: p.now()}
	for _, d := range all {
		if p.online(d.ID) {
			found.device = d.ID
			break
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last[account] = found
	return found.device != 0
}

// count is how many devices are online.
func (p *presence) count() (n int) {
	now := p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, at := range p.seen {
		if now.Sub(at) < onlineFor {
			n++
		}
	}
	return n
}

// lastSeen is when a device called last, as far as is known in memory.
func (p *presence) lastSeen(device streams.DeviceID) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen[device]
}
