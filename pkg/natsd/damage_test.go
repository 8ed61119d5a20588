package natsd

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/trunkline-sms/trunkline/pkg/natsd/filestore/filestoretest"
)

const (
	damagedMessages = 12
	bodySize        = mib // so that there are two blocks
)

// crashed makes a stream of some messages, and leaves the directory as a killed
// process does.
func crashed(t *testing.T) (dir string) {
	t.Helper()
	s := mustStart(t, Options{Dir: t.TempDir(), InProcessOnly: true, Durability: "process"})
	defer s.Stop()
	conn, err := s.Connect("test")
	if err != nil {
		t.Fatal(err)
	}
	js := mustStream(t, conn)
	for i := range damagedMessages {
		m := nats.NewMsg("s." + strconv.Itoa(i))
		m.Header.Set(jetstream.MsgIDHeader, strconv.Itoa(i))
		m.Data = body(i)
		if _, err := js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	dir = filepath.Join(t.TempDir(), "data")
	copyPrivate(t, s.dir, dir)
	return dir
}

func body(i int) []byte { return bytes.Repeat([]byte{byte('a' + i)}, bodySize) }

func copyPrivate(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(to, keysDir, "engine.nk"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func blockOf(t *testing.T, dir string, index int) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, engineDir, "jetstream", "*", "streams", "S", "msgs", strconv.Itoa(index)+".blk"))
	if err != nil || len(found) != 1 {
		t.Fatalf("got the blocks %v, %v", found, err)
	}
	return found[0]
}

// change changes a block.
func change(t *testing.T, path string, by func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, by(data), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// One bit that flips costs one message, which the start names; all others are
// given as they were. Without the check the engine would cut off all that
// follow in the file.
func TestStart_FlippedBit(t *testing.T) {
	left := crashed(t)
	inRecord := func(seq uint64, offset int) func(*testing.T, []byte) []byte {
		return func(t *testing.T, data []byte) []byte {
			data[filestoretest.At(t, data, seq)+offset] ^= 1
			return data
		}
	}
	for name, test := range map[string]struct {
		block  int
		change func(*testing.T, []byte) []byte
		lost   []uint64
		lines  int
	}{
		"nothing":          {1, func(_ *testing.T, data []byte) []byte { return data }, nil, 0},
		"body":             {1, inRecord(3, 5000), []uint64{3}, 1},
		"first of a block": {1, inRecord(1, 5000), []uint64{1}, 1},
		"subject":          {1, inRecord(4, filestoretest.RecordHead), []uint64{4}, 1},
		"length":           {1, inRecord(3, 1), []uint64{3}, 1},
		"sequence":         {1, inRecord(3, 4), []uint64{3}, 1},
		"checksum": {1, func(t *testing.T, data []byte) []byte {
			data[filestoretest.At(t, data, 4)-1] ^= 1
			return data
		}, []uint64{3}, 1},
		"last block": {2, inRecord(damagedMessages-2, 5000), []uint64{damagedMessages - 2}, 1},
		"half written": {2, func(_ *testing.T, data []byte) []byte {
			return data[:len(data)-100]
		}, []uint64{damagedMessages}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			copyPrivate(t, left, dir)
			change(t, blockOf(t, dir, test.block), func(data []byte) []byte { return test.change(t, data) })
			core, logged := observer.New(zap.ErrorLevel)
			s := mustStart(t, Options{Dir: dir, InProcessOnly: true, Durability: "process", Log: zap.New(core)})
			defer s.Stop()
			conn, err := s.Connect("test")
			if err != nil {
				t.Fatal(err)
			}
			var lost []uint64
			stream, err := mustStream(t, conn).Stream(t.Context(), "S")
			if err != nil {
				t.Fatal(err)
			}
			for i := range damagedMessages {
				m, err := stream.GetMsg(t.Context(), uint64(i+1))
				switch {
				case err != nil:
					lost = append(lost, uint64(i+1))
				case !bytes.Equal(m.Data, body(i)) || m.Header.Get(jetstream.MsgIDHeader) != strconv.Itoa(i):
					t.Errorf("message %d has another content", i+1)
				}
			}
			if fmt.Sprint(lost) != fmt.Sprint(test.lost) {
				t.Errorf("lost %v, want %v", lost, test.lost)
			}
			if got := logged.FilterMessageSnippet("the disk has damaged a stream").Len(); got != test.lines {
				t.Errorf("got the lines %v, want %d", logged.All(), test.lines)
			}
			kept, err := filepath.Glob(filepath.Join(dir, engineDir, damagedDir, "*"))
			if err != nil || len(kept) != test.lines {
				t.Errorf("kept %v, %v, want %d", kept, err, test.lines)
			}
		})
	}
}

// After a stop in order nothing is looked through.
func TestStart_InOrder(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		s := mustStart(t, Options{Dir: dir, InProcessOnly: true})
		if s.lock.crashed {
			t.Error("a stop in order was taken for a crash")
		}
		s.Stop()
	}
}

// A hole in a batch that was being written when the power failed is left to the
// engine, which has the whole batch beside the stream. One in a batch that was
// finished costs what is in the hole.
func TestStart_HoleInBatch(t *testing.T) {
	s := mustStart(t, Options{Dir: t.TempDir(), InProcessOnly: true})
	defer s.Stop()
	conn, err := s.Connect("test")
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	config := jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, AllowAtomicPublish: true}
	if _, err := js.CreateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	const messages = 10
	for i := 1; i <= messages; i++ {
		m := nats.NewMsg("s.a")
		m.Header.Set("Nats-Batch-Id", "one")
		m.Header.Set("Nats-Batch-Sequence", strconv.Itoa(i))
		m.Data = body(0)[:300]
		if i == messages {
			m.Header.Set("Nats-Batch-Commit", "1")
		}
		if _, err := conn.RequestMsgWithContext(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	left := filepath.Join(t.TempDir(), "data")
	copyPrivate(t, s.dir, left)
	for name, test := range map[string]struct {
		staged bool
		stored uint64
	}{
		"being written": {true, 3},
		"finished":      {false, messages - 2},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			copyPrivate(t, left, dir)
			block := blockOf(t, dir, 1)
			change(t, block, func(data []byte) []byte {
				clear(data[filestoretest.At(t, data, 4)+100 : filestoretest.At(t, data, 5)+100])
				return data
			})
			if test.staged {
				if err := os.MkdirAll(filepath.Join(filepath.Dir(filepath.Dir(block)), "batches", "some"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			s := mustStart(t, Options{Dir: dir, InProcessOnly: true})
			defer s.Stop()
			conn, err := s.Connect("test")
			if err != nil {
				t.Fatal(err)
			}
			js, err := jetstream.New(conn)
			if err != nil {
				t.Fatal(err)
			}
			stream, err := js.Stream(t.Context(), "S")
			if err != nil {
				t.Fatal(err)
			}
			if got := stream.CachedInfo().State.Msgs; got != test.stored {
				t.Errorf("got %d messages, want %d", got, test.stored)
			}
		})
	}
}

// A crash may leave the engine a last block that holds nothing yet. The one before it is then written on, and all of it
// can still be read. What was compressed by then is spoilt, which is why no stream of ours is compressed: should the
// engine have learnt it, this test says so.
func TestStart_LastBlockHoldsNothing(t *testing.T) {
	for name, test := range map[string]struct {
		compression jetstream.StoreCompression
		spoilt      bool
	}{
		"plain":      {jetstream.NoCompression, false},
		"compressed": {jetstream.S2Compression, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			run := func(do func(jetstream.JetStream)) {
				s := mustStart(t, Options{Dir: dir, InProcessOnly: true, Durability: "process"})
				defer s.Stop()
				conn, err := s.Connect("test")
				if err != nil {
					t.Fatal(err)
				}
				js, err := jetstream.New(conn)
				if err != nil {
					t.Fatal(err)
				}
				do(js)
			}
			publish := func(js jetstream.JetStream, data []byte) (uint64, error) {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				ack, err := js.Publish(ctx, "s.x", data)
				if err != nil {
					return 0, err
				}
				return ack.Sequence, nil
			}
			left := filepath.Join(t.TempDir(), "data")
			run(func(js jetstream.JetStream) {
				if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, Compression: test.compression}); err != nil {
					t.Fatal(err)
				}
				for i := range damagedMessages {
					if _, err := publish(js, body(i)); err != nil {
						t.Fatal(err)
					}
				}
				until(t, func() bool {
					block, err := os.ReadFile(blockOf(t, dir, 1))
					return err == nil && filestoretest.Compressed(block) == (test.compression != jetstream.NoCompression)
				})
				copyPrivate(t, dir, left)
			})
			dir = left
			change(t, blockOf(t, dir, 2), func([]byte) []byte { return nil })
			var first uint64
			run(func(js jetstream.JetStream) {
				var err error
				if first, err = publish(js, nil); err != nil || first < 3 || first >= damagedMessages {
					t.Fatalf("published %d, %v, want the number behind the first block's", first, err)
				}
			})
			run(func(js jetstream.JetStream) {
				next, err := publish(js, nil)
				if spoilt := err != nil || next != first+1; spoilt != test.spoilt {
					t.Errorf("published %d, %v after %d, want spoilt %t", next, err, first, test.spoilt)
				}
				if test.spoilt {
					return
				}
				stream, err := js.Stream(t.Context(), "S")
				if err != nil {
					t.Fatal(err)
				}
				for seq := uint64(1); seq < first; seq++ {
					if m, err := stream.GetMsg(t.Context(), seq); err != nil || !bytes.Equal(m.Data, body(int(seq-1))) {
						t.Errorf("message %d of %d: %v", seq, first, err)
					}
				}
			})
		})
	}
}
