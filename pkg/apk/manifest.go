package apk

import (
	"encoding/binary"
	"unicode/utf16"
)

// The manifest is XML in a binary form (AXML): chunks, each with its kind, the
// size of its header and its whole size. Texts stand in a pool and are named by
// their place in it.
const (
	chunkXML       = 0x0003
	chunkPool      = 0x0001
	chunkResources = 0x0180
	chunkElement   = 0x0102

	poolUTF8 = 1 << 8 // flag

	none = 0xffffffff // in the place of a text

	// The attributes' numbers in Android; names may be left out or be others.
	attrCode      = 0x0101021b
	attrName      = 0x0101021c
	attrCodeMajor = 0x01010576

	typeReference = 0x01
	typeText      = 0x03
	typeFirstInt  = 0x10
	typeLastInt   = 0x1f

	headerSize    = 8
	poolSize      = 28
	elementSize   = 16 // of a node's header
	attributeSize = 20
)

// readManifest reads what the first element says. It must be the manifest's.
func readManifest(data []byte) (Info, error) {
	kind, _, size, ok := chunk(data)
	if !ok || kind != chunkXML {
		return Info{}, noAPK("its manifest is not in Android's binary form")
	}
	var m manifest
	for rest := data[headerSize:size]; ; {
		kind, header, size, ok := chunk(rest)
		if !ok {
			return Info{}, noAPK("its manifest is damaged")
		}
		body := rest[header:size]
		switch kind {
		case chunkPool:
			if m.pool.set(rest[:size]) {
				break
			}
			return Info{}, noAPK("the texts of its manifest are damaged")
		case chunkResources:
			m.ids = body
		case chunkElement:
			if header != elementSize {
				return Info{}, noAPK("its manifest is damaged")
			}
			return m.info(body)
		}
		rest = rest[size:]
	}
}

// chunk reads a chunk's header. It is not ok if the chunk is not whole.
func chunk(data []byte) (kind, header, size int, ok bool) {
	if len(data) < headerSize {
		return 0, 0, 0, false
	}
	kind, header = int(binary.LittleEndian.Uint16(data)), int(binary.LittleEndian.Uint16(data[2:]))
	long := binary.LittleEndian.Uint32(data[4:])
	return kind, header, int(long), header >= headerSize && int64(header) <= int64(long) && int64(long) <= int64(len(data))
}

type manifest struct {
	pool pool
	ids  []byte // the numbers of the attributes whose names come first in the pool
}

// info reads the attributes of the first element.
func (m *manifest) info(body []byte) (Info, error) {
	// Namespace, name, where attributes begin, their size, their number.
	if len(body) < 20 || m.text(binary.LittleEndian.Uint32(body[4:])) != "manifest" {
		return Info{}, noAPK("its manifest does not begin as one")
	}
	start, size, count := int(binary.LittleEndian.Uint16(body[8:])), int(binary.LittleEndian.Uint16(body[10:])), int(binary.LittleEndian.Uint16(body[12:]))
	if size < attributeSize || start+size*count > len(body) {
		return Info{}, noAPK("its manifest is damaged")
	}
	var i Info
	var code, major uint32
	for n := range count {
		a := body[start+n*size:]
		namespace, name := binary.LittleEndian.Uint32(a), binary.LittleEndian.Uint32(a[4:])
		raw, kind, value := binary.LittleEndian.Uint32(a[8:]), a[15], binary.LittleEndian.Uint32(a[16:])
		if kind == typeText {
			raw = value
		}
		switch number := m.number(name); {
		case number == 0 && namespace == none && m.text(name) == "package":
			i.Package = m.text(raw)
		case number == attrName && kind == typeReference:
			return Info{}, noAPK("its version name is a reference to a resource, write it out in the build")
		case number == attrName:
			i.Version = m.text(raw)
		case number == attrCode || number == attrCodeMajor:
			if kind < typeFirstInt || kind > typeLastInt {
				return Info{}, noAPK("its version code is not a number")
			}
			if number == attrCode {
				code = value
			} else {
				major = value
			}
		}
	}
	i.Code = int64(uint64(major)<<32 | uint64(code))
	return i, i.check()
}

// number is the attribute's in Android, 0 if it has none.
func (m *manifest) number(name uint32) uint32 {
	if uint64(name)*4+4 > uint64(len(m.ids)) {
		return 0
	}
	return binary.LittleEndian.Uint32(m.ids[name*4:])
}

func (m *manifest) text(place uint32) string { return m.pool.text(place) }

// pool are the texts. Each is read when it is asked for.
type pool struct {
	places []byte // where each begins, from the begin of texts
	texts  []byte
	utf8   bool
}

func (p *pool) set(data []byte) bool {
	if len(data) < poolSize {
		return false
	}
	count, flags := binary.LittleEndian.Uint32(data[8:]), binary.LittleEndian.Uint32(data[16:])
	start := binary.LittleEndian.Uint32(data[20:])
	if uint64(count)*4+poolSize > uint64(len(data)) || uint64(start) > uint64(len(data)) {
		return false
	}
	*p = pool{places: data[poolSize : poolSize+count*4], texts: data[start:], utf8: flags&poolUTF8 != 0}
	return true
}

// text gives a text, or none where it is not whole or too long for any of
// those that are asked for.
func (p *pool) text(place uint32) string {
	if uint64(place)*4+4 > uint64(len(p.places)) {
		return ""
	}
	at := binary.LittleEndian.Uint32(p.places[place*4:])
	if uint64(at) >= uint64(len(p.texts)) {
		return ""
	}
	b := p.texts[at:]
	if p.utf8 {
		// Its length in UTF-16, then the one in bytes: short ones have one byte.
		if len(b) < 2 || b[0] >= 0x80 && len(b) < 4 {
			return ""
		}
		if b[0] >= 0x80 {
			b = b[1:]
		}
		b = b[1:]
		length, b := int(b[0]), b[1:]
		if length >= 0x80 {
			if len(b) == 0 {
				return ""
			}
			length, b = length&0x7f<<8|int(b[0]), b[1:]
		}
		if length > len(b) || length > maxText {
			return ""
		}
		return string(b[:length])
	}
	if len(b) < 2 {
		return ""
	}
	length, b := int(binary.LittleEndian.Uint16(b)), b[2:]
	if length > maxText || 2*length > len(b) { // a longer one has its top bit set
		return ""
	}
	units := make([]uint16, length)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return string(utf16.Decode(units))
}

// maxText is more than the longest that check lets through.
const maxText = 1024
