// Package apk reads what an Android app says of itself: its package and its
// version. The files come from anywhere, so it reads only the few parts that
// it needs, each no larger than a bound, whatever the file claims.
package apk

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"unicode"
	"unicode/utf8"
)

const (
	// MaxSize is the most bytes that a file may have.
	//
	// Limit: an APK has at most 512 MiB. Beyond it: it cannot be published.
	// Used up by: the operator. Hurts: nobody else. Test: TestRead_TooLarge.
	MaxSize = 512 << 20
	// maxDirectory bounds the list of a file's parts, of which there may be tens of thousands.
	//
	// Limit: the list of the parts in an APK has at most 16 MiB. Beyond it: the APK cannot be published.
	// Used up by: the operator. Hurts: nobody else. Test: TestRead_BoundedMemory.
	maxDirectory = 16 << 20
	// maxManifest bounds the manifest when it is unpacked. Those of large apps have some hundred kilobytes.
	//
	// Limit: the manifest in an APK, unpacked, has at most 4 MiB. Beyond it: the APK cannot be published.
	// Used up by: the operator. Hurts: nobody else. Test: TestRead_BoundedMemory.
	maxManifest = 4 << 20

	// Limit: the package of an app has at most 255 characters. Beyond it: the APK cannot be published.
	// Used up by: the operator. Hurts: nobody else. Test: TestRead_Refuses.
	maxPackage = 255 // characters
	// Limit: the name of a version has at most 64 printable characters. Beyond it: the APK cannot be published.
	// Used up by: the operator. Hurts: nobody else. Test: TestRead_Refuses.
	maxVersion = 64 // characters
)

// ErrNoAPK says that a file is no app that a phone could install. The error
// around it says why.
var ErrNoAPK = errors.New("this is no APK")

func noAPK(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrNoAPK, fmt.Sprintf(format, args...))
}

// Info is what an app says of itself.
type Info struct {
	Package string // "org.example.gateway"
	Version string // the name that people see, "1.2.0"
	Code    int64  // the higher one is the newer; from 1 on
}

var packageForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)+$`)

// Read reads an APK of size bytes. The error is ErrNoAPK if it is none. The
// memory and the time that it takes are bounded, whatever the file holds.
func Read(r io.ReaderAt, size int64) (Info, error) {
	if size > MaxSize {
		return Info{}, noAPK("it has more than %d bytes", MaxSize)
	}
	z, err := openZip(r, size)
	if err != nil {
		return Info{}, err
	}
	manifest, err := z.manifest()
	if err != nil {
		return Info{}, err
	}
	info, err := readManifest(manifest)
	if err != nil {
		return Info{}, err
	}
	signed, err := z.signed()
	if err != nil {
		return Info{}, err
	}
	if !signed {
		return Info{}, noAPK("it is not signed, so no phone installs it")
	}
	return info, nil
}

func (i Info) check() error {
	switch {
	case len(i.Package) > maxPackage || !packageForm.MatchString(i.Package):
		return noAPK("its package has no name of an app")
	case i.Code < 1:
		return noAPK("its version code is not a number from 1 on")
	case i.Version == "" || utf8.RuneCountInString(i.Version) > maxVersion || !printable(i.Version):
		return noAPK("its version name is not 1 to %d printable characters", maxVersion)
	}
	return nil
}

func printable(text string) bool {
	for _, char := range text {
		if char == utf8.RuneError || !unicode.IsPrint(char) {
			return false
		}
	}
	return true
}
