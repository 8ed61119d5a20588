package version

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	bolt "go.etcd.io/bbolt"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/object"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

const (
	semantic = "1.0.0"
	// maxNotes bounds the notes in an answer to an app.
	//
	// Limit: the notes of a release have at most 10,000 characters. Beyond it: the release cannot be published.
	// Used up by: the operator. Hurts: nobody else. Test: TestPublish_Refuses.
	maxNotes = 10_000 // characters
	// decideWithin is how long a decision may be tried.
	decideWithin = 20 * time.Second
)

func (v *Version) serve(ctx context.Context) error {
	return v.bus.Serve(ctx, bus.ServeOptions{
		Name:        "version",
		Version:     semantic,
		Description: "Releases of the gateway app",
		Endpoints: []bus.Endpoint{
			{Subject: request.VersionList, Handler: bus.Handle(v.list)},
			{Subject: request.VersionCheck, Handler: bus.Handle(v.check)},
			{Subject: request.VersionPublish, Handler: bus.Handle(v.publish)},
			{Subject: request.VersionActivate, Handler: bus.Handle(v.activate)},
			{Subject: request.VersionWithdraw, Handler: bus.Handle(v.withdraw)},
		},
		Ready: func() { close(v.serving) },
		Log:   v.log,
	})
}

func (v *Version) serveProjection(ctx context.Context) error {
	return v.bus.Serve(ctx, bus.ServeOptions{
		Name:        "projection-" + Projection,
		Version:     semantic,
		Description: "Verifies, rebuilds and dumps the projection of releases",
		Endpoints:   v.file.Endpoints(Projection),
		Log:         v.log,
	})
}

func (v *Version) list(ctx context.Context, q request.Versions) (request.VersionsListed, error) {
	if err := v.file.Err(); err != nil {
		return request.VersionsListed{}, err
	}
	b, err := v.book()
	if q.Fresh {
		b, err = v.current(ctx)
	}
	return request.VersionsListed{Versions: append([]request.AppVersion{}, b.versions...)}, err
}

func (v *Version) book() (b book, err error) {
	err = v.file.View(func(tx *bolt.Tx) error {
		b, err = readBook(tx)
		return err
	})
	return b, err
}

// current is the book with all decisions that were stored before.
func (v *Version) current(ctx context.Context) (book, error) {
	last, err := v.bus.LastForSubject(ctx, streams.ReleaseStream, streams.ReleaseSubjects)
	if err == nil {
		err = v.file.Wait(ctx, streams.ReleaseStream, last.Sequence)
	}
	if err != nil && !errors.Is(err, bus.ErrNoMessage) {
		return book{}, err
	}
	return v.book()
}

// check says before an upload whether publish would reject the release.
func (v *Version) check(ctx context.Context, q request.CheckVersion) (request.VersionChecked, error) {
	b, err := v.current(ctx)
	if err == nil {
		err = b.mayPublish(q.Code, q.Package)
	}
	if err == nil {
		err = v.hasRoom(q.Size)
	}
	return request.VersionChecked{}, err
}

// hasRoom counts a file twice: ingress keeps a copy on the same disk.
func (v *Version) hasRoom(size int64) error {
	if err := v.room(2 * max(size, 0)); err != nil {
		return fault.New(fault.Full, "disk_full", "The server's disk has too little room for this release").With(err)
	}
	return nil
}

func (b book) mayPublish(code streams.VersionCode, name string) error {
	if there := b.find(code); there != nil {
		return fault.New(fault.Conflict, "version_exists", fmt.Sprintf(
			"Version code %v is there already (%s): raise it in the app's build", code, there.Version))
	}
	for _, there := range b.versions {
		if !there.Withdrawn && there.Package != name {
			return fault.New(fault.Conflict, "other_package", fmt.Sprintf(
				"This is the app %s, but the releases are of %s", name, there.Package))
		}
	}
	return nil
}

// publish makes a release of a file that was uploaded, once it has read it back
// whole.
func (v *Version) publish(ctx context.Context, q request.PublishVersion) (request.AppVersion, error) {
	if err := wellFormed(q); err != nil {
		return request.AppVersion{}, err
	}
	uploaded, err := v.store.Find(ctx, q.Object)
	switch {
	case errors.Is(err, object.ErrNotFound):
		return request.AppVersion{}, fault.New(fault.NotFound, "not_uploaded", "The release's file was not uploaded")
	case err != nil:
		return request.AppVersion{}, err
	case uploaded.Size != q.Size || uploaded.SHA256 != q.SHA256:
		return request.AppVersion{}, fault.New(fault.Conflict, "other_file", "The file that was uploaded is not the release's")
	case v.now().Sub(uploaded.Put) > publishWithin:
		return request.AppVersion{}, fault.New(fault.Conflict, "upload_expired", "The file was uploaded too long ago, upload it again")
	}
	if err := v.store.Read(ctx, uploaded, io.Discard, nil); errors.Is(err, object.ErrDamaged) {
		return request.AppVersion{}, fault.New(fault.Conflict, "upload_damaged", "The file is damaged in the store, upload it again").With(err)
	} else if err != nil {
		return request.AppVersion{}, err
	}
	return v.decide(ctx, q.Code, func(b book) (event.Event, error) {
		if there := b.find(q.Code); there != nil && there.Object == q.Object {
			return nil, nil // it is this one, by a try whose outcome was unknown
		}
		return event.Published{
			Code: q.Code, Version: q.Version, Package: q.Package, Notes: q.Notes, MinCode: q.MinCode,
			Size: q.Size, SHA256: q.SHA256, Object: q.Object, At: v.at(),
		}, b.mayPublish(q.Code, q.Package)
	})
}

func wellFormed(q request.PublishVersion) error {
	digest, err := hex.DecodeString(q.SHA256)
	switch {
	case q.Code < 1 || q.Version == "" || q.Package == "" || q.Object == "" || q.Size < 1 || err != nil || len(digest) != 32:
		return fault.New(fault.Invalid, "invalid_release", "The release is not described whole")
	case utf8.RuneCountInString(q.Notes) > maxNotes || !utf8.ValidString(q.Notes) || strings.ContainsRune(q.Notes, 0):
		return fault.New(fault.Invalid, "invalid_notes", "Release notes are text of at most 10000 characters")
	case q.MinCode < 0 || q.MinCode > q.Code:
		return fault.New(fault.Invalid, "invalid_min_code", "The lowest code that need not update is from 0 to the release's own")
	}
	return nil
}

func (v *Version) activate(ctx context.Context, q request.ActivateVersion) (request.AppVersion, error) {
	return v.decide(ctx, q.Code, func(b book) (event.Event, error) {
		there, err := b.standing(q.Code)
		if err != nil || there.Active {
			return nil, err
		}
		return event.Activated{Code: q.Code, At: v.at()}, nil
	})
}

func (v *Version) withdraw(ctx context.Context, q request.WithdrawVersion) (request.AppVersion, error) {
	withdrawn, err := v.decide(ctx, q.Code, func(b book) (event.Event, error) {
		there := b.find(q.Code)
		if there != nil && there.Withdrawn {
			return nil, nil
		}
		_, err := b.standing(q.Code)
		return event.Withdrawn{Code: q.Code, At: v.at()}, err
	})
	if err != nil {
		return withdrawn, err
	}
	if err := v.store.Remove(ctx, withdrawn.Object); err != nil {
		// The sweep removes it later.
		v.log.Warn("file of a withdrawn release not removed yet", zap.Stringer("code", q.Code), zap.Error(err))
	}
	return withdrawn, nil
}

// standing finds a release that was not withdrawn.
func (b book) standing(code streams.VersionCode) (*request.AppVersion, error) {
	switch there := b.find(code); {
	case there == nil:
		return nil, fault.New(fault.NotFound, "version_not_found", fmt.Sprintf("There is no version with code %v", code))
	case there.Withdrawn:
		return nil, fault.New(fault.Conflict, "version_withdrawn", fmt.Sprintf("Version code %v was withdrawn, which is for ever: publish another", code))
	default:
		return there, nil
	}
}

func (v *Version) at() time.Time { return v.now().UTC().Truncate(time.Millisecond) }

// decide publishes the decision that judge makes from all decisions so far; if judge
// gives nil, nothing is published. It returns the release as it is after that. The
// decision is stored only if no other came in between: that is its fence. Otherwise
// judge is asked again, so it may be called several times.
func (v *Version) decide(ctx context.Context, code streams.VersionCode, judge func(book) (event.Event, error)) (request.AppVersion, error) {
	v.deciding.Lock()
	defer v.deciding.Unlock()
	ctx, cancel := context.WithTimeout(ctx, decideWithin)
	defer cancel()
	var b book
	decisions := bus.Decisions{Bus: v.bus, Stream: streams.ReleaseStream, Subject: streams.ReleaseSubjects, Await: func(ctx context.Context, seq uint64) error {
		return v.file.Wait(ctx, streams.ReleaseStream, seq)
	}}
	err := decisions.Decide(ctx, func() (decision *nats.Msg, last uint64, err error) {
		if b, err = v.current(ctx); err != nil {
			return nil, 0, err
		}
		e, err := judge(b)
		if err != nil || e == nil {
			return nil, 0, err
		}
		decision, err = event.Message(streams.ReleaseSubject(code), e)
		return decision, b.decision, err
	})
	if err == nil {
		b, err = v.book()
	}
	switch {
	case errors.Is(err, bus.ErrFull):
		return request.AppVersion{}, fault.New(fault.Full, "stream_full", "The stream of releases, or the disk, is full").With(err)
	case err != nil:
		return request.AppVersion{}, err
	}
	return *b.find(code), nil
}
