package request

import (
	"time"

	"github.com/trunkline-sms/trunkline/streams"
)

// The version service's subjects.
const (
	VersionList     = "trunkline.version.list"     // Versions → VersionsListed
	VersionCheck    = "trunkline.version.check"    // CheckVersion → VersionChecked
	VersionPublish  = "trunkline.version.publish"  // PublishVersion → AppVersion
	VersionActivate = "trunkline.version.activate" // ActivateVersion → AppVersion
	VersionWithdraw = "trunkline.version.withdraw" // WithdrawVersion → AppVersion
)

// AppVersion is a release of the app.
type AppVersion struct {
	Code      streams.VersionCode `json:"code"`
	Version   string              `json:"version"`
	Package   string              `json:"package"`
	Notes     string              `json:"notes"`
	MinCode   streams.VersionCode `json:"min_code"` // apps below it must update
	Size      int64               `json:"size"`
	SHA256    string              `json:"sha256"` // hex
	Object    string              `json:"object"` // the file's name in the object store
	Published time.Time           `json:"published"`
	Active    bool                `json:"active"`
	Withdrawn bool                `json:"withdrawn"`
	Downloads int64               `json:"downloads"`
}

// Versions asks for all releases.
type Versions struct {
	Fresh bool `json:"fresh,omitempty"` // with every decision that was stored before, whoever made it
}

// VersionsListed are all releases, also those that were withdrawn, the highest
// code first.
type VersionsListed struct {
	Versions []AppVersion `json:"versions"`
}

// CheckVersion asks whether a release could be published, before its file is
// uploaded.
type CheckVersion struct {
	Code    streams.VersionCode `json:"code"`
	Package string              `json:"package"`
	Size    int64               `json:"size"`
}

// VersionChecked answers a CheckVersion: it could.
type VersionChecked struct{}

// PublishVersion asks for a release whose file was uploaded.
type PublishVersion struct {
	Code    streams.VersionCode `json:"code"`
	Version string              `json:"version"`
	Package string              `json:"package"`
	Notes   string              `json:"notes"`
	MinCode streams.VersionCode `json:"min_code"`
	Size    int64               `json:"size"`
	SHA256  string              `json:"sha256"`
	Object  string              `json:"object"`
}

// ActivateVersion asks for a release to be the one that apps are told to have.
type ActivateVersion struct {
	Code streams.VersionCode `json:"code"`
}

// WithdrawVersion asks for a release to be taken back.
type WithdrawVersion struct {
	Code streams.VersionCode `json:"code"`
}
