package apk

import (
	"errors"
	"testing"

	"github.com/trunkline-sms/trunkline/pkg/testkit/apktest"
)

// The manifest is fuzzed apart: behind the checksum of its zip nothing would
// get through.
func FuzzManifest(f *testing.F) {
	f.Add(apktest.Manifest(apktest.App{Package: "a.b", Version: "1", Code: 1}))
	f.Add(apktest.Manifest(apktest.App{Package: "org.example.gateway", Version: "1.2.0", Code: 7<<32 | 1, UTF8: true}))
	f.Fuzz(func(t *testing.T, manifest []byte) {
		info, err := readManifest(manifest)
		if err != nil && !errors.Is(err, ErrNoAPK) {
			t.Errorf("got error %v, want ErrNoAPK", err)
		}
		if err == nil && info.check() != nil {
			t.Errorf("got %+v, which is not checked", info)
		}
	})
}
