package event

import (
	"time"

	"github.com/trunkline-sms/trunkline/streams"
)

// Published says that a release of the app is there, its file whole in the
// object store.
type Published struct {
	Code    streams.VersionCode `json:"code"`
	Version string              `json:"version"` // the name that people see, "1.2.0"
	Package string              `json:"package"` // the app's id; all releases have the same
	Notes   string              `json:"notes"`
	MinCode streams.VersionCode `json:"min_code,omitempty"` // apps below it must update
	Size    int64               `json:"size"`               // bytes of the file
	SHA256  string              `json:"sha256"`             // of the file, hex
	Object  string              `json:"object"`             // the file's name in the object store
	At      time.Time           `json:"at"`
}

// Kind is release.published.v1.
func (Published) Kind() Kind { return KindPublished }

// Activated says that a release is the one that apps are told to have.
type Activated struct {
	Code streams.VersionCode `json:"code"`
	At   time.Time           `json:"at"`
}

// Kind is release.activated.v1.
func (Activated) Kind() Kind { return KindActivated }

// Withdrawn says that a release was taken back, for ever. If it was the active
// one, none is.
type Withdrawn struct {
	Code streams.VersionCode `json:"code"`
	At   time.Time           `json:"at"`
}

// Kind is release.withdrawn.v1.
func (Withdrawn) Kind() Kind { return KindWithdrawn }

// Downloaded counts downloads of a release since the last such event.
type Downloaded struct {
	Code  streams.VersionCode `json:"code"`
	Count int64               `json:"count"`
}

// Kind is release.downloaded.v1.
func (Downloaded) Kind() Kind { return KindDownloaded }
