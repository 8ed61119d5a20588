package streams

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// OwnerOf is the account's part of a subject of ENQUEUE or STATUS that has one,
// as it stands there. It takes no memory.
func OwnerOf(subject string) string {
	for range 3 {
		_, subject, _ = strings.Cut(subject, ".")
	}
	owner, _, _ := strings.Cut(subject, ".")
	return owner
}

// EnqueueSubject is where a message of that lane is published.
func EnqueueSubject(shard Shard, account AccountID, lane Lane) string {
	return "sms.enqueue." + shard.String() + "." + account.String() + "." + lane.String()
}

// EnqueuedSubjects matches every message of a shard.
func EnqueuedSubjects(shard Shard) string { return "sms.enqueue." + shard.String() + ".>" }

// ParseEnqueueSubject reads what EnqueueSubject gives.
func ParseEnqueueSubject(subject string) (AccountID, Lane, error) {
	parts := strings.SplitN(subject, ".", 5)
	if len(parts) != 5 || parts[0] != "sms" || parts[1] != "enqueue" {
		return 0, Lane{}, fmt.Errorf("parse enqueue subject: want sms.enqueue.<shard>.<account>.<lane>")
	}
	account, err := ParseAccountID(parts[3])
	if err != nil {
		return 0, Lane{}, fmt.Errorf("parse enqueue subject: %w", err)
	}
	lane, err := ParseLane(parts[4])
	if err != nil {
		return 0, Lane{}, fmt.Errorf("parse enqueue subject: %w", err)
	}
	return account, lane, nil
}

// ScheduledSubject is where an account's messages are published that are due
// later.
func ScheduledSubject(shard Shard, account AccountID) string {
	return "sms.scheduled." + shard.String() + "." + account.String()
}

// ScheduledSubjects matches every scheduled message of a shard.
func ScheduledSubjects(shard Shard) string { return "sms.scheduled." + shard.String() + ".*" }

// AcceptedSubjects match every accepted message of a shard, due or not.
func AcceptedSubjects(shard Shard) []string {
	return []string{EnqueuedSubjects(shard), ScheduledSubjects(shard)}
}

// ParseScheduledSubject gives the account of a scheduled message.
func ParseScheduledSubject(subject string) (AccountID, error) {
	parts := strings.Split(subject, ".")
	if len(parts) != 4 || parts[0] != "sms" || parts[1] != "scheduled" {
		return 0, fmt.Errorf("parse scheduled subject: want sms.scheduled.<shard>.<account>")
	}
	return ParseAccountID(parts[3])
}

// ConsumerName names the durable consumer that hands out a lane.
func ConsumerName(account AccountID, lane Lane) string {
	return account.String() + "_" + strings.ReplaceAll(lane.String(), ".", "_")
}

// KeySubject holds the marker of a request that carries an idempotency key.
// The key itself stays outside: a subject has only its hash.
func KeySubject(shard Shard, account AccountID, key string) string {
	sum := sha256.Sum256([]byte(key))
	return "sms.key." + shard.String() + "." + account.String() + "." + hex.EncodeToString(sum[:16])
}

// BarrierSubject is where quota marks a place in a shard's ENQUEUE stream.
func BarrierSubject(shard Shard) string { return "sms.barrier." + shard.String() }

// FenceSubject is where the fence of an ingress instance stands in a shard's
// ENQUEUE stream: what the instance stores expects the last event there.
func FenceSubject(shard Shard, instance int) string {
	return fences(shard) + strconv.Itoa(instance)
}

// FenceSubjects matches every fence of a shard. No account has such an id.
func FenceSubjects(shard Shard) string { return fences(shard) + "*" }

func fences(shard Shard) string { return "sms.key." + shard.String() + ".fence." }

// ParseFenceSubject gives the instance of a fence.
func ParseFenceSubject(subject string) (int, error) {
	parts := strings.Split(subject, ".")
	if len(parts) != 5 || parts[0] != "sms" || parts[1] != "key" || parts[3] != "fence" {
		return 0, fmt.Errorf("parse fence subject: want sms.key.<shard>.fence.<instance>")
	}
	instance, err := strconv.Atoi(parts[4])
	if err != nil || instance < 0 || instance > MaxInstance {
		return 0, fmt.Errorf("parse fence subject: want an instance up to %d", MaxInstance)
	}
	return instance, nil
}

// ReservedSubject is where an ingress instance reserves ids of messages in a
// shard's ENQUEUE stream. No account has such an id.
func ReservedSubject(shard Shard, instance int) string {
	return "sms.key." + shard.String() + ".ids." + strconv.Itoa(instance)
}

// ParseBarrierSubject gives the shard of a barrier.
func ParseBarrierSubject(subject string) (Shard, error) {
	number, ok := strings.CutPrefix(subject, "sms.barrier.")
	shard, err := strconv.Atoi(number)
	if !ok || err != nil || shard < 0 {
		return 0, fmt.Errorf("parse barrier subject: want sms.barrier.<shard>")
	}
	return Shard(shard), nil
}

// DecisionSubject is an account's fence: one decision after another.
func DecisionSubject(shard Shard, account AccountID) string {
	return "sms.status." + shard.String() + "." + account.String() + ".decision"
}

// ReportSubject is where what phones say about an account's messages goes.
func ReportSubject(shard Shard, account AccountID) string {
	return "sms.status." + shard.String() + "." + account.String() + ".report"
}

// ParseStatusSubject gives the account of a decision or report subject.
func ParseStatusSubject(subject string) (AccountID, error) {
	parts := strings.Split(subject, ".")
	if len(parts) != 5 || parts[0] != "sms" || parts[1] != "status" {
		return 0, fmt.Errorf("parse status subject: want sms.status.<shard>.<account>.<what>")
	}
	return ParseAccountID(parts[3])
}

// HorizonSubject is where a shard's horizon moves forward.
func HorizonSubject(shard Shard) string { return "sms.horizon." + shard.String() }

// AccountSubjects matches every message of an account.
func AccountSubjects(shard Shard, account AccountID) string {
	return "sms.enqueue." + shard.String() + "." + account.String() + ".>"
}
