package streams

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"time"
)

// ID is an id of ours: 16 lower-case hex digits wherever it is text, safe in
// subjects, consumer names and bucket keys. The zero ID means "none".
type ID[Of any] uint64

// The things that have ids. An id of one cannot be passed as an id of another.
type (
	MessageID = ID[messageKind]
	AccountID = ID[accountKind]
	DeviceID  = ID[deviceKind]
	LeaseID   = ID[leaseKind]

	messageKind struct{}
	accountKind struct{}
	deviceKind  struct{}
	leaseKind   struct{}
)

const idDigits = 16

// ParseID reads the 16 lower-case hex digits of an id. It refuses everything
// else, upper case too, so that one id has one text.
func ParseID[Of any](text string) (ID[Of], error) {
	if len(text) != idDigits || strings.ToLower(text) != text {
		return 0, fmt.Errorf("parse id: want %d lower-case hex digits", idDigits)
	}
	var raw [idDigits / 2]byte
	if _, err := hex.Decode(raw[:], []byte(text)); err != nil {
		return 0, fmt.Errorf("parse id: want %d lower-case hex digits", idDigits)
	}
	return ID[Of](binary.BigEndian.Uint64(raw[:])), nil
}

// ParseMessageID is ParseID for a message's id.
func ParseMessageID(text string) (MessageID, error) { return ParseID[messageKind](text) }

// ParseAccountID is ParseID for an account's id.
func ParseAccountID(text string) (AccountID, error) { return ParseID[accountKind](text) }

// AccountIDOf is the id of the account with that name: a hash, so that a name
// is taken at most once.
func AccountIDOf(name string) AccountID { return AccountID(hashID("account", name)) }

// DeviceIDOf is the id of the device that calls itself name in an account.
func DeviceIDOf(account AccountID, name string) DeviceID {
	return DeviceID(hashID("device", account.String()+"/"+name))
}

func hashID(kind, text string) uint64 {
	sum := sha256.Sum256([]byte(kind + "/" + text))
	return max(binary.BigEndian.Uint64(sum[:8]), 1)
}

// AppendText appends the id's 16 hex digits to b.
func (id ID[Of]) AppendText(b []byte) ([]byte, error) {
	var raw [idDigits / 2]byte
	binary.BigEndian.PutUint64(raw[:], uint64(id))
	return hex.AppendEncode(b, raw[:]), nil
}

// MarshalText gives the id's 16 hex digits.
func (id ID[Of]) MarshalText() ([]byte, error) { return id.AppendText(nil) }

// UnmarshalText is ParseID.
func (id *ID[Of]) UnmarshalText(text []byte) error {
	got, err := ParseID[Of](string(text))
	*id = got
	return err
}

// String gives the id's 16 hex digits.
func (id ID[Of]) String() string {
	text, _ := id.AppendText(make([]byte, 0, idDigits))
	return string(text)
}

// Time-ordered ids: 41 bit milliseconds since Epoch, 10 bit instance, 12 bit
// sequence.
const (
	// Limit: a deployment has at most 1,024 ingresses: 10 bits. Beyond it: another one does not become ready.
	// Used up by: the operator. Hurts: nobody else. Test: TestClaim_AllTaken.
	instanceBits = 10
	// Limit: an ingress gives 4,096 ids in a millisecond: 12 bits. Beyond it: it goes on in the next millisecond,
	// ahead of the clock.
	// Used up by: more load than was ever seen. Hurts: nobody. Test: TestIDsRiseWhateverTheClockSays.
	sequenceBits = 12

	// MaxInstance is the highest instance number that can make ids.
	MaxInstance = 1<<instanceBits - 1
)

// Epoch is the time of the lowest time-ordered id.
//
// Limit: an id has 41 bits of milliseconds from the start of 2026, which last until 2095.
// Used up by: time. Hurts: nobody before 2095.
var Epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Time is when a time-ordered id (a message's, a lease's) was made, to the
// millisecond.
func (id ID[Of]) Time() time.Time {
	return Epoch.Add(time.Duration(id>>(instanceBits+sequenceBits)) * time.Millisecond)
}

// FirstIDAt is the lowest time-ordered id of that millisecond, the highest id
// there is beyond the time of ids.
func FirstIDAt(t time.Time) MessageID {
	const last = 1<<(64-instanceBits-sequenceBits) - 1
	ms := t.UnixMilli() - Epoch.UnixMilli()
	if ms > last {
		return ^MessageID(0)
	}
	return MessageID(max(ms, 0)) << (instanceBits + sequenceBits)
}

// IDs makes time-ordered ids: strictly rising, unique among instances whose
// numbers differ. It is safe for concurrent use.
type IDs struct {
	now      func() time.Time
	instance uint64

	mu   sync.Mutex
	last uint64 // milliseconds and sequence of the last id given, without the instance
}

// NewIDs makes ids under an instance number (at most MaxInstance) from the
// clock now. No id is before floor, whatever the clock says.
func NewIDs(now func() time.Time, instance int, floor time.Time) *IDs {
	ms := max(floor.Sub(Epoch).Milliseconds(), 0)
	return &IDs{now: now, instance: uint64(instance) & MaxInstance, last: uint64(ms) << sequenceBits}
}

// NotBefore leaves out what ids are left before t.
func (g *IDs) NotBefore(t time.Time) {
	ms := max(t.Sub(Epoch).Milliseconds(), 0)
	g.mu.Lock()
	defer g.mu.Unlock()
	// next gives what comes after the last one.
	g.last = max(g.last, uint64(ms)<<sequenceBits)
}

// Message gives the next message id.
func (g *IDs) Message() MessageID { return MessageID(g.next()) }

// Lease gives the next lease id.
func (g *IDs) Lease() LeaseID { return LeaseID(g.next()) }

func (g *IDs) next() uint64 {
	ms := max(g.now().Sub(Epoch).Milliseconds(), 0)
	g.mu.Lock()
	// A full millisecond runs over into the next one; a clock that steps back
	// leaves the ids going on from the last.
	g.last = max(g.last+1, uint64(ms)<<sequenceBits)
	tick := g.last
	g.mu.Unlock()
	return tick>>sequenceBits<<(instanceBits+sequenceBits) | g.instance<<sequenceBits | tick&(1<<sequenceBits-1)
}
