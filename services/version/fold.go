package version

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// fold keeps the releases: what each one is, which one is active, and how often
// each was downloaded.
type fold struct{}

// The buckets. The keys of the first two are codes, 8 bytes.
var (
	versionsBucket  = []byte("versions")  // → what was published, as JSON
	downloadsBucket = []byte("downloads") // → 8 bytes
	stateBucket     = []byte("state")

	activeKey   = []byte("active")   // → code
	decisionKey = []byte("decision") // → sequence of the last decision
)

// version is a release as it is stored.
type version struct {
	event.Published
	Withdrawn bool `json:"withdrawn,omitempty"`
}

// Schema is raised whenever the same events would give another file.
func (fold) Schema() int { return 1 }

// Sources names the stream of releases.
func (fold) Sources() []projection.Source {
	return []projection.Source{{Stream: streams.ReleaseStream, Subjects: []string{streams.ReleaseSubjects, streams.DownloadSubjects}}}
}

// Apply folds one event. It sets aside what it does not know: a later version stored that.
func (fold) Apply(tx *bolt.Tx, e projection.Event) error {
	w, err := newWriter(tx)
	if err != nil {
		return err
	}
	code, err := streams.ParseReleaseSubject(e.Subject)
	if err != nil {
		return nil // no part of this system published it
	}
	switch event.Kind(e.Kind) {
	case event.KindPublished:
		err = apply(e, func(p event.Published) error { return w.published(code, p) })
	case event.KindActivated:
		err = apply(e, func(event.Activated) error { return w.activated(code) })
	case event.KindWithdrawn:
		err = apply(e, func(event.Withdrawn) error { return w.withdrawn(code) })
	case event.KindDownloaded:
		return apply(e, func(d event.Downloaded) error { return w.downloaded(code, d.Count) })
	}
	if err != nil {
		return err
	}
	if e.Subject == streams.ReleaseSubject(code) {
		// Also one of a later version: the next decision expects it as the last.
		return w.state.Put(decisionKey, number(int64(e.Seq)))
	}
	return nil
}

// apply decodes an event and folds it. An event that cannot be read counts as not
// decided.
func apply[E event.Event](e projection.Event, f func(E) error) error {
	decoded, err := event.Decode[E](e.Data)
	if err != nil {
		return nil
	}
	return f(decoded)
}

// writer changes the buckets in a transaction.
type writer struct{ versions, downloads, state *bolt.Bucket }

func newWriter(tx *bolt.Tx) (w writer, err error) {
	for name, bucket := range map[string]**bolt.Bucket{
		string(versionsBucket): &w.versions, string(downloadsBucket): &w.downloads, string(stateBucket): &w.state,
	} {
		if *bucket, err = tx.CreateBucketIfNotExists([]byte(name)); err != nil {
			return w, fmt.Errorf("make bucket: %w", err)
		}
	}
	return w, nil
}

func (w writer) published(code streams.VersionCode, p event.Published) error {
	if w.versions.Get(key(code)) != nil {
		return nil // a code is used once
	}
	p.Code = code
	return w.put(version{Published: p})
}

func (w writer) activated(code streams.VersionCode) error {
	v, err := read(w.versions.Get(key(code)))
	if err != nil || v == nil || v.Withdrawn {
		return err
	}
	return w.state.Put(activeKey, key(code))
}

func (w writer) withdrawn(code streams.VersionCode) error {
	v, err := read(w.versions.Get(key(code)))
	if err != nil || v == nil {
		return err
	}
	v.Withdrawn = true
	if err := w.put(*v); err != nil {
		return err
	}
	if bytes.Equal(w.state.Get(activeKey), key(code)) {
		return w.state.Delete(activeKey)
	}
	return nil
}

func (w writer) downloaded(code streams.VersionCode, count int64) error {
	if count <= 0 {
		return nil
	}
	return w.downloads.Put(key(code), number(readNumber(w.downloads.Get(key(code)))+count))
}

func (w writer) put(v version) error {
	value, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode version %s: %w", v.Code, err)
	}
	return w.versions.Put(key(v.Code), value)
}

func read(value []byte) (*version, error) {
	if value == nil {
		return nil, nil
	}
	v := new(version)
	if err := json.Unmarshal(value, v); err != nil {
		return nil, fmt.Errorf("read version: %w", err)
	}
	return v, nil
}

func key(code streams.VersionCode) []byte { return number(int64(code)) }

func number(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

func readNumber(value []byte) int64 {
	if len(value) != 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(value))
}

// book is the folded state of all releases.
type book struct {
	versions []request.AppVersion // the highest code first
	decision uint64               // sequence of the last one
}

func readBook(tx *bolt.Tx) (book, error) {
	var b book
	versions, downloads, state := tx.Bucket(versionsBucket), tx.Bucket(downloadsBucket), tx.Bucket(stateBucket)
	if versions == nil { // nothing has been folded
		return b, nil
	}
	active := state.Get(activeKey)
	b.decision = uint64(readNumber(state.Get(decisionKey)))
	c := versions.Cursor()
	for code, value := c.Last(); code != nil; code, value = c.Prev() {
		v, err := read(value)
		if err != nil {
			return b, err
		}
		b.versions = append(b.versions, request.AppVersion{
			Code: v.Code, Version: v.Version, Package: v.Package, Notes: v.Notes, MinCode: v.MinCode,
			Size: v.Size, SHA256: v.SHA256, Object: v.Object, Published: v.At,
			Active: bytes.Equal(code, active), Withdrawn: v.Withdrawn, Downloads: readNumber(downloads.Get(code)),
		})
	}
	return b, nil
}

func (b book) find(code streams.VersionCode) *request.AppVersion {
	for i := range b.versions {
		if b.versions[i].Code == code {
			return &b.versions[i]
		}
	}
	return nil
}

// render makes a dump readable.
func render(bucket, key, value []byte) (string, string) {
	switch {
	case bytes.Equal(bucket, versionsBucket):
		return fmt.Sprint(readNumber(key)), string(value)
	case bytes.Equal(bucket, downloadsBucket):
		return fmt.Sprint(readNumber(key)), fmt.Sprint(readNumber(value))
	}
	return string(key), fmt.Sprint(readNumber(value))
}
