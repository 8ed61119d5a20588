package streams

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// ReleaseStream names the stream of app releases. It is one, whatever the
// number of shards.
const ReleaseStream = "RELEASE"

// ApksBucket is the object store of the releases' files.
const ApksBucket = "apks"

// The subjects of the RELEASE stream.
const (
	ReleaseSubjects  = releasePrefix + "*"  // every decision about a release
	DownloadSubjects = downloadPrefix + "*" // every count of downloads

	releasePrefix  = "app.release."
	downloadPrefix = "app.download."
)

const (
	// Downloads are counted at most every few seconds and release, in some
	// 150 bytes: years of a fleet that never stops.
	//
	// Limit: releases and counts of downloads take at most 1 GiB, some 150 bytes each. Beyond it: nothing can be
	// published, and counts wait.
	// Used up by: years of a fleet that never stops downloading. Hurts: the operator. Test:
	// TestDefinitionsAreGolden.
	releaseMaxBytes = 1 << 30
	// Limit: the files of all releases take at most 8 GiB. Beyond it: the upload fails: withdraw old releases.
	// Used up by: the operator. Hurts: nobody else. Test: TestDefinitionsAreGolden.
	apksMaxBytes = 8 << 30
)

// VersionCode is Android's number of a version: the higher one is the newer.
type VersionCode int64

// ParseVersionCode reads the decimal digits of a version code, in the one form
// that String gives.
func ParseVersionCode(text string) (VersionCode, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	code := VersionCode(n)
	if err != nil || code < 1 || code.String() != text {
		return 0, fmt.Errorf("parse version code: want a number from 1 on")
	}
	return code, nil
}

// String gives the code's digits.
func (c VersionCode) String() string { return strconv.FormatInt(int64(c), 10) }

// ReleaseSubject is where decisions about a release are published.
func ReleaseSubject(code VersionCode) string { return releasePrefix + code.String() }

// DownloadSubject is where downloads of a release are counted.
func DownloadSubject(code VersionCode) string { return downloadPrefix + code.String() }

// ParseReleaseSubject reads what ReleaseSubject and DownloadSubject give.
func ParseReleaseSubject(subject string) (VersionCode, error) {
	digits, found := strings.CutPrefix(subject, releasePrefix)
	if !found {
		digits, found = strings.CutPrefix(subject, downloadPrefix)
	}
	if !found {
		return 0, fmt.Errorf("parse release subject: want %s<code> or %s<code>", releasePrefix, downloadPrefix)
	}
	return ParseVersionCode(digits)
}

// Release defines the stream of app releases. Nothing in it grows old: what was
// published long ago is still listed.
func (d Deployment) Release() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              ReleaseStream,
		Description:       "App releases and how often they were downloaded",
		Subjects:          []string{ReleaseSubjects, DownloadSubjects},
		Retention:         jetstream.LimitsPolicy,
		Storage:           jetstream.FileStorage,
		Compression:       jetstream.NoCompression,
		Discard:           jetstream.DiscardNew,
		MaxBytes:          releaseMaxBytes,
		Duplicates:        2 * time.Minute,
		MaxMsgs:           -1,
		MaxMsgsPerSubject: -1,
		MaxMsgSize:        -1,
		MaxConsumers:      1000,
		Replicas:          d.Replicas,
		AllowDirect:       true,
		Metadata:          map[string]string{},
	}
}

// Apks defines the object store of the releases' files.
func (d Deployment) Apks() jetstream.ObjectStoreConfig {
	return jetstream.ObjectStoreConfig{
		Bucket:      ApksBucket,
		Description: "The files of app releases",
		MaxBytes:    apksMaxBytes,
		Storage:     jetstream.FileStorage,
		Replicas:    d.Replicas,
	}
}

// ReleaseBytes is what RELEASE and the files of releases may grow to together.
const ReleaseBytes = releaseMaxBytes + apksMaxBytes
