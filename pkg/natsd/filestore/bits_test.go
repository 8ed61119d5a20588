package filestore

import (
	"bytes"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/natsd/filestore/filestoretest"
)

const (
	messages = 12
	bodySize = 1 << 20 // so that there are two blocks
)

// stored is the store of an engine that has a stream of some messages.
func stored(t *testing.T) (store string) {
	t.Helper()
	dir := t.TempDir()
	engine, err := server.NewServer(&server.Options{JetStream: true, StoreDir: dir, DontListen: true, NoSigs: true, MaxPayload: 2 << 20})
	if err != nil {
		t.Fatal(err)
	}
	engine.Start()
	defer engine.WaitForShutdown()
	defer engine.Shutdown()
	if !engine.ReadyForConnections(time.Minute) {
		t.Fatal("the engine does not start")
	}
	conn, err := nats.Connect("", nats.InProcessServer(engine))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}}); err != nil {
		t.Fatal(err)
	}
	for i := range messages {
		m := nats.NewMsg("s." + strconv.Itoa(i))
		m.Header.Set(jetstream.MsgIDHeader, strconv.Itoa(i))
		m.Data = bytes.Repeat([]byte{byte('a' + i)}, bodySize)
		if _, err := js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, server.JetStreamStoreDir)
}

// Wherever a bit flips in a block, the records around it are found: one
// stretch is damaged, and it is no longer than the record.
func TestBlock_AnyBit(t *testing.T) {
	var b *Block
	if err := EachBlock(stored(t), func(one *Block) error {
		if one.Index == 1 {
			b = one
		}
		return nil
	}); err != nil || b == nil {
		t.Fatalf("found no block: %v", err)
	}
	if got := b.Damages(); len(got) != 0 {
		t.Fatalf("a whole block: got %v", got)
	}
	draw := rand.New(rand.NewPCG(1, 2))
	end := filestoretest.At(t, b.data, 7) // the last one has none behind it to be found by
	offsets := []int{0, 3, 4, 11, 12, 19, 20, 21, recordHead}
	for range 12 {
		offsets = append(offsets, draw.IntN(end))
	}
	for _, offset := range offsets {
		bit := byte(1) << draw.IntN(8)
		b.data[offset] ^= bit
		got := b.Damages()
		b.data[offset] ^= bit
		if unchecked := len(got) == 0 && b.unchecked(t, offset); unchecked {
			continue
		}
		if len(got) != 1 || got[0].From > offset || got[0].To <= offset || got[0].To-got[0].From > bodySize+200 || got[0].After != got[0].Before+2 {
			t.Errorf("bit %08b at %d: got %+v", bit, offset, got)
		}
	}
}

// unchecked says that an offset is among the four bytes that no checksum
// covers: the length of a message's headers.
func (b *Block) unchecked(t *testing.T, offset int) bool {
	t.Helper()
	for at := 0; at < len(b.data); {
		r, subject, headers, ok := b.head(at)
		if !ok {
			t.Fatal("not a block")
		}
		from := at + recordHead + subject
		if headers && offset >= from && offset < from+4 {
			return true
		}
		at += r.length
	}
	return false
}
