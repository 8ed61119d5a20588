// Package apktest builds small Android apps for tests, from their parts: a
// binary manifest, a few files, a signature of the second scheme.
package apktest

import (
	"archive/zip"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"math/big"
	chacha "math/rand/v2"
	"time"
	"unicode/utf16"
)

// App is what to build. A zero field means a default.
type App struct {
	Package  string // org.example.gateway
	Version  string // 1.2.0
	Code     int64  // 5
	Padding  int    // bytes that cannot be packed
	UTF8     bool   // form of the manifest's texts
	Unsigned bool
	Manifest []byte // instead of one with the above
	Twice    bool   // the manifest is in the file twice
}

// Build gives the bytes of the app's file. It panics if it cannot build it.
func Build(a App) []byte {
	if a.Package == "" {
		a.Package = "org.example.gateway"
	}
	if a.Version == "" {
		a.Version = "1.2.0"
	}
	if a.Code == 0 {
		a.Code = 5
	}
	if a.Manifest == nil {
		a.Manifest = Manifest(a)
	}
	var file bytes.Buffer
	z := zip.NewWriter(&file)
	add := func(name string, method uint16, content []byte) {
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: method})
		if err == nil {
			_, err = w.Write(content)
		}
		must(err)
	}
	add("AndroidManifest.xml", zip.Deflate, a.Manifest)
	if a.Twice {
		add("AndroidManifest.xml", zip.Deflate, a.Manifest)
	}
	add("classes.dex", zip.Store, []byte("dex\n035\x00"))
	if a.Padding > 0 {
		padding := make([]byte, a.Padding)
		_, _ = chacha.NewChaCha8([32]byte{byte(a.Code)}).Read(padding)
		add("assets/padding", zip.Store, padding)
	}
	must(z.Close())
	if a.Unsigned {
		return file.Bytes()
	}
	return sign(file.Bytes())
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// Manifest gives the binary manifest: <manifest package= versionCode= versionName=>.
func Manifest(a App) []byte {
	const none = 0xffffffff
	// The attributes' names come first, as their numbers do.
	texts := []string{"versionCode", "versionName", "versionCodeMajor", "package", "manifest", a.Package, a.Version}
	ids := le(uint32(0x0101021b), uint32(0x0101021c), uint32(0x01010576))
	attribute := func(namespace, name, raw uint32, kind byte, value uint32) []byte {
		return le(namespace, name, raw, uint16(8), byte(0), kind, value)
	}
	attributes := [][]byte{
		attribute(1, 0, none, 0x10, uint32(a.Code)),
		attribute(1, 1, 6, 0x03, 6),
		attribute(none, 3, 5, 0x03, 5),
	}
	if major := uint32(a.Code >> 32); major > 0 {
		attributes = append(attributes, attribute(1, 2, none, 0x10, major))
	}
	node := le(uint32(1), uint32(none)) // line, comment
	element := append(node, le(uint32(none), uint32(4), uint16(20), uint16(20), uint16(len(attributes)), uint16(0), uint16(0), uint16(0))...)
	for _, one := range attributes {
		element = append(element, one...)
	}
	body := append(pool(texts, a.UTF8), chunk(0x0180, 8, ids)...)
	body = append(body, chunk(0x0102, 16, element)...)
	body = append(body, chunk(0x0103, 16, append(node, le(uint32(none), uint32(4))...))...)
	return chunk(0x0003, 8, body)
}

func pool(texts []string, short bool) []byte {
	var places, content []byte
	flags := uint32(0)
	for _, text := range texts {
		places = append(places, le(uint32(len(content)))...)
		units := utf16.Encode([]rune(text))
		if short {
			flags = 1 << 8
			content = append(content, lengthOf(len(units))...)
			content = append(content, lengthOf(len(text))...)
			content = append(append(content, text...), 0)
			continue
		}
		content = append(content, le(uint16(len(units)))...)
		content = append(content, le(units, uint16(0))...)
	}
	for len(content)%4 != 0 {
		content = append(content, 0)
	}
	head := le(uint32(len(texts)), uint32(0), flags, uint32(28+len(places)), uint32(0))
	return chunk(0x0001, 28, append(append(head, places...), content...))
}

func lengthOf(n int) []byte {
	if n < 0x80 {
		return []byte{byte(n)}
	}
	return []byte{0x80 | byte(n>>8), byte(n)}
}

// chunk puts the header of a chunk before the rest of it.
func chunk(kind, header uint16, rest []byte) []byte {
	return append(le(kind, header, uint32(8+len(rest))), rest...)
}

func le(values ...any) []byte {
	var b bytes.Buffer
	for _, v := range values {
		_ = binary.Write(&b, binary.LittleEndian, v)
	}
	return b.Bytes()
}

// sign puts a signing block of the APK signature scheme v2 before the
// directory.
func sign(file []byte) []byte {
	end := len(file) - 22
	directory := int(binary.LittleEndian.Uint32(file[end+16:]))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Unix(1<<32, 0)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(err)
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	must(err)
	const algorithm = uint32(0x0201) // ECDSA with SHA-256
	digest := contentDigest(file[:directory], file[directory:end], file[end:])
	signed := join(sized(sized(join(le(algorithm), sized(digest)))), sized(sized(certificate)), sized(nil))
	hash := sha256.Sum256(signed)
	signature, err := ecdsa.SignASN1(rand.Reader, key, hash[:])
	must(err)
	signer := join(sized(signed), sized(sized(join(le(algorithm), sized(signature)))), sized(public))
	value := join(le(uint32(0x7109871a)), sized(sized(signer)))
	pair := join(le(uint64(len(value))), value)
	size := le(uint64(len(pair) + 8 + 16))
	block := join(size, pair, size, []byte("APK Sig Block 42"))

	all := join(file[:directory], block, file[directory:])
	binary.LittleEndian.PutUint32(all[len(all)-22+16:], uint32(directory+len(block)))
	return all
}

func contentDigest(sections ...[]byte) []byte {
	var digests []byte
	count := uint32(0)
	for _, section := range sections {
		for len(section) > 0 {
			n := min(len(section), 1<<20)
			sum := sha256.Sum256(join([]byte{0xa5}, le(uint32(n)), section[:n]))
			digests = append(digests, sum[:]...)
			section = section[n:]
			count++
		}
	}
	sum := sha256.Sum256(join([]byte{0x5a}, le(count), digests))
	return sum[:]
}

func sized(b []byte) []byte { return join(le(uint32(len(b))), b) }

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
