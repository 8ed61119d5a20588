package apk

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
)

// archive/zip makes an object of every entry of a directory before anybody can
// ask how many there are, so the directory is read here.
const (
	endSize      = 22
	maxComment   = 1<<16 - 1
	entrySize    = 46
	localSize    = 30
	endMagic     = "PK\x05\x06"
	entryMagic   = "PK\x01\x02"
	localMagic   = "PK\x03\x04"
	signingMagic = "APK Sig Block 42"

	encrypted = 1 // flag
	stored    = 0 // methods
	deflated  = 8

	manifestName = "AndroidManifest.xml"
)

// zipFile is an opened file: what its directory says of what matters here.
type zipFile struct {
	r      io.ReaderAt
	start  int64 // of the directory
	found  *entry
	signer bool // it has a signature of the first scheme
}

// entry is where a part stands.
type entry struct {
	flags, method    uint16
	crc              uint32
	packed, unpacked int64
	at               int64
}

func openZip(r io.ReaderAt, size int64) (*zipFile, error) {
	start, length, err := findDirectory(r, size)
	if err != nil {
		return nil, err
	}
	directory, err := readAt(r, start, length)
	if err != nil {
		return nil, err
	}
	z := &zipFile{r: r, start: start}
	for rest := directory; len(rest) > 0; {
		if len(rest) < entrySize || string(rest[:4]) != entryMagic {
			return nil, noAPK("its directory is damaged")
		}
		name := int(binary.LittleEndian.Uint16(rest[28:]))
		whole := entrySize + name + int(binary.LittleEndian.Uint16(rest[30:])) + int(binary.LittleEndian.Uint16(rest[32:]))
		if len(rest) < whole {
			return nil, noAPK("its directory is damaged")
		}
		if err := z.note(string(rest[entrySize:entrySize+name]), rest); err != nil {
			return nil, err
		}
		rest = rest[whole:]
	}
	if z.found == nil {
		return nil, noAPK("it has no %s", manifestName)
	}
	return z, nil
}

// note looks at an entry of the directory.
func (z *zipFile) note(name string, header []byte) error {
	folder, file, _ := strings.Cut(name, "/")
	if folder == "META-INF" && (strings.HasSuffix(file, ".RSA") || strings.HasSuffix(file, ".DSA") || strings.HasSuffix(file, ".EC")) {
		z.signer = true
	}
	if name != manifestName {
		return nil
	}
	if z.found != nil {
		return noAPK("it has two manifests") // and phones may read the other one
	}
	z.found = &entry{
		flags:    binary.LittleEndian.Uint16(header[8:]),
		method:   binary.LittleEndian.Uint16(header[10:]),
		crc:      binary.LittleEndian.Uint32(header[16:]),
		packed:   int64(binary.LittleEndian.Uint32(header[20:])),
		unpacked: int64(binary.LittleEndian.Uint32(header[24:])),
		at:       int64(binary.LittleEndian.Uint32(header[42:])),
	}
	return nil
}

// findDirectory reads the file's end, which says where the directory stands.
func findDirectory(r io.ReaderAt, size int64) (start, length int64, err error) {
	tail, err := readAt(r, max(size-endSize-maxComment, 0), min(size, endSize+maxComment))
	if err != nil {
		return 0, 0, err
	}
	at := bytes.LastIndex(tail, []byte(endMagic))
	for ; at >= 0; at = bytes.LastIndex(tail[:at], []byte(endMagic)) {
		// The comment behind it ends with the file.
		if at+endSize <= len(tail) && at+endSize+int(binary.LittleEndian.Uint16(tail[at+20:])) == len(tail) {
			break
		}
	}
	if at < 0 {
		return 0, 0, noAPK("it does not end as one; it may be cut off")
	}
	end := tail[at:]
	length, start = int64(binary.LittleEndian.Uint32(end[12:])), int64(binary.LittleEndian.Uint32(end[16:]))
	switch {
	case length > maxDirectory:
		return 0, 0, noAPK("its directory has more than %d bytes", maxDirectory)
	case start+length > size-int64(len(tail)-at):
		return 0, 0, noAPK("its directory is not in the file")
	}
	return start, length, nil
}

// manifest reads the manifest, unpacked and checked.
func (z *zipFile) manifest() ([]byte, error) {
	e := z.found
	switch {
	case e.flags&encrypted != 0:
		return nil, noAPK("its manifest is encrypted")
	case e.unpacked > maxManifest:
		return nil, noAPK("its manifest has more than %d bytes", maxManifest)
	case e.at+localSize > z.start:
		return nil, noAPK("its manifest is not in the file")
	}
	header, err := readAt(z.r, e.at, localSize)
	if err != nil {
		return nil, err
	}
	if string(header[:4]) != localMagic {
		return nil, noAPK("its manifest is not where its directory says")
	}
	begin := e.at + localSize + int64(binary.LittleEndian.Uint16(header[26:])) + int64(binary.LittleEndian.Uint16(header[28:]))
	if begin+e.packed > z.start {
		return nil, noAPK("its manifest is not in the file")
	}
	var from io.Reader = io.NewSectionReader(z.r, begin, e.packed)
	switch e.method {
	case stored:
	case deflated:
		from = flate.NewReader(from)
	default:
		return nil, noAPK("its manifest is packed in an unknown way")
	}
	// One byte more than it claims to have is enough to see that it lies.
	content, err := io.ReadAll(io.LimitReader(from, e.unpacked+1))
	if err != nil {
		return nil, noAPK("its manifest cannot be unpacked")
	}
	if int64(len(content)) != e.unpacked || crc32.ChecksumIEEE(content) != e.crc {
		return nil, noAPK("its manifest is damaged")
	}
	return content, nil
}

// signed says whether there is a signature, of whichever scheme. Whose it is,
// and whether it fits, is for phones to judge.
func (z *zipFile) signed() (bool, error) {
	if z.signer || z.start < int64(len(signingMagic)) {
		return z.signer, nil
	}
	magic, err := readAt(z.r, z.start-int64(len(signingMagic)), int64(len(signingMagic)))
	return string(magic) == signingMagic, err
}

func readAt(r io.ReaderAt, at, length int64) ([]byte, error) {
	b := make([]byte, length)
	n, err := r.ReadAt(b, at)
	if int64(n) == length {
		return b, nil
	}
	if errors.Is(err, io.EOF) {
		return nil, noAPK("it is cut off")
	}
	return nil, fmt.Errorf("read APK: %w", err)
}
