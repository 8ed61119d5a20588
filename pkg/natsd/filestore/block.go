package filestore

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"os"

	"github.com/minio/highwayhash"
)

// Block is one of the files of a stream: records, one after the other, each with a
// checksum. After a crash the engine reads them all, and cuts a file off at the
// first record that is not whole. That is right for a record that was half written
// at the end. But if one bit has flipped in the middle, it loses thousands of
// messages.
type Block struct {
	Path   string
	Stream string
	Index  int  // 17 of 17.blk
	last   bool // of its stream: its end may be half written
	staged bool // the engine still has batches that it had not finished writing
	data   []byte
	hash   hash.Hash64
}

// The engine's layout of a record: length, sequence, time, length of the
// subject; subject, length of the headers if there are any, headers, body;
// checksum.
const (
	recordHead    = 22
	recordSum     = 8
	emptyRecord   = recordHead + recordSum
	longestRecord = 32 << 20

	withHeaders = 1 << 31 // in the length
	erased      = 1 << 63 // in the sequence
	tombstone   = 1 << 62

	// farthest is how many sequences a damaged stretch has at most.
	farthest = 1 << 20
)

// compressed begins a block that is compressed as a whole. The engine checks such
// blocks itself, and does not open a stream with a damaged one.
var compressed = []byte("cmp")

// Damage is a stretch of a block without a whole record.
type Damage struct {
	From, To      int    // offsets
	Before, After uint64 // the sequences of the messages around it; 0: in another block
}

func openBlock(path, stream string, index int, last bool) (*Block, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("check stream %s: %w", stream, err)
	}
	key := sha256.Sum256(fmt.Appendf(nil, "%s-%d", stream, index))
	sum, err := highwayhash.New64(key[:])
	if err != nil {
		return nil, fmt.Errorf("check stream %s: %w", stream, err)
	}
	return &Block{Path: path, Stream: stream, Index: index, last: last, data: data, hash: sum}, nil
}

// record is the length and the sequence of a record.
type record struct {
	length int
	seq    uint64
}

func (r record) number() uint64 { return r.seq &^ (erased | tombstone) }

// head reads the first bytes of a record, if there can be one at an offset.
func (b *Block) head(at int) (r record, subject int, headers, ok bool) {
	if at+emptyRecord > len(b.data) {
		return r, 0, false, false
	}
	head := b.data[at:]
	length := binary.LittleEndian.Uint32(head)
	headers = length&withHeaders != 0
	r = record{length: int(length &^ withHeaders), seq: binary.LittleEndian.Uint64(head[4:])}
	subject = int(binary.LittleEndian.Uint16(head[20:]))
	least := emptyRecord + subject
	if headers {
		least += 4
	}
	return r, subject, headers, r.length >= least && r.length <= longestRecord && at+r.length <= len(b.data)
}

// whole reads the record at an offset, and checks it against its checksum.
func (b *Block) whole(at int) (record, bool) {
	r, subject, headers, ok := b.head(at)
	if !ok {
		return r, false
	}
	all := b.data[at : at+r.length]
	rest := recordHead + subject
	b.hash.Reset()
	b.hash.Write(all[4:20])
	b.hash.Write(all[recordHead:rest])
	if headers {
		rest += 4
	}
	b.hash.Write(all[rest : r.length-recordSum])
	return r, bytes.Equal(b.hash.Sum(nil), all[r.length-recordSum:])
}

// Damages lists the damaged stretches. The end of the stream's last block is not
// among them: it may have been half written when the process was killed.
func (b *Block) Damages() (all []Damage) {
	if bytes.HasPrefix(b.data, compressed) {
		return nil
	}
	var last uint64
	for at := 0; at < len(b.data); {
		if r, ok := b.whole(at); ok {
			if r.seq&tombstone == 0 {
				last = max(last, r.number())
			}
			at += r.length
			continue
		}
		d := Damage{From: at, To: len(b.data), Before: last}
		if next, found := b.next(at, last); found {
			if b.last && b.staged && b.endsInOneBatch(next) {
				return all // the engine cuts it off, and writes the batch again
			}
			d.To, d.After = next, b.messageFrom(next)
		} else if b.last {
			return all // the engine cuts it off
		}
		if d.To-d.From < emptyRecord {
			return all
		}
		all = append(all, d)
		at = d.To
	}
	return all
}

// next finds the whole record that follows a damaged one.
func (b *Block) next(at int, last uint64) (int, bool) {
	for at++; at+emptyRecord <= len(b.data); at++ {
		r, _, _, ok := b.head(at)
		if !ok {
			continue
		}
		near := r.number() > last && (last == 0 || r.number() <= last+farthest)
		if !near && r.length != emptyRecord {
			continue
		}
		if _, ok := b.whole(at); ok {
			return at, true
		}
	}
	return 0, false
}

// messageFrom is the sequence of the first message at an offset or behind it, 0
// if there is none.
func (b *Block) messageFrom(at int) uint64 {
	for at < len(b.data) {
		r, ok := b.whole(at)
		if !ok {
			break
		}
		if r.seq&tombstone == 0 && r.number() != 0 {
			return r.number()
		}
		at += r.length
	}
	return 0
}

// endsInOneBatch reports whether all whole records from an offset on belong to one
// atomic batch. A batch is synced only when all of it is written, so a power cut
// before that leaves some of its pages and not others.
func (b *Block) endsInOneBatch(at int) bool {
	batch := b.batch(at)
	for at < len(b.data) && len(batch) > 0 {
		r, ok := b.whole(at)
		if !ok {
			if at, ok = b.next(at, 0); !ok {
				break
			}
			continue
		}
		if !bytes.Equal(b.batch(at), batch) {
			return false
		}
		at += r.length
	}
	return len(batch) > 0
}

// batch is the id of the atomic batch to which a whole record belongs, empty if it
// belongs to none.
func (b *Block) batch(at int) []byte {
	r, subject, headers, _ := b.head(at)
	if !headers {
		return nil
	}
	rest := b.data[at+recordHead+subject : at+r.length-recordSum]
	length := min(int(binary.LittleEndian.Uint32(rest)), len(rest)-4)
	_, value, _ := bytes.Cut(rest[4:4+length], []byte("\r\nNats-Batch-Id:"))
	id, _, _ := bytes.Cut(value, []byte("\r\n"))
	return bytes.TrimSpace(id)
}

// Bytes are the bytes of a damaged stretch.
func (b *Block) Bytes(d Damage) []byte { return b.data[d.From:d.To] }

// SetAside overwrites a damaged stretch with a record that looks to the engine like
// a deleted message. It skips that, and so does not lose what follows.
func (b *Block) SetAside(d Damage) error {
	record := make([]byte, d.To-d.From)
	binary.LittleEndian.PutUint32(record, uint32(len(record)))
	binary.LittleEndian.PutUint64(record[4:], erased)
	b.hash.Reset()
	b.hash.Write(record[4:20])
	b.hash.Write(record[recordHead : len(record)-recordSum])
	copy(record[len(record)-recordSum:], b.hash.Sum(nil))

	file, err := os.OpenFile(b.Path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.WriteAt(record, int64(d.From)); err != nil {
		return err
	}
	return file.Sync()
}
