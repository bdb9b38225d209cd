package s3

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// page is a listing as Amazon writes it.
func page(n int) string {
	var s strings.Builder
	s.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n" + `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">` +
		`<Name>bucket</Name><Prefix></Prefix><KeyCount>1000</KeyCount><MaxKeys>1000</MaxKeys><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>`)
	for i := range n {
		fmt.Fprintf(&s, `<Contents><Key>main/some/directory/file-%06d.txt</Key><LastModified>2026-11-23T12:34:56.000Z</LastModified>`+
			`<ETag>&quot;0123456789abcdef0123456789abcdef&quot;</ETag><ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm>`+
			`<ChecksumType>FULL_OBJECT</ChecksumType><Size>%d</Size><StorageClass>STANDARD</StorageClass></Contents>`, i, i*17)
	}
	s.WriteString(`</ListBucketResult>`)
	return s.String()
}

// What the scanner makes of a document, the parser of the standard library
// makes of it too; and no document makes it panic or run for ever.
func FuzzListing(f *testing.F) {
	f.Add(page(2))
	for _, seed := range []string{
		``, `<`, `<a`, `<ListBucketResult/>`, `<ListBucketResult><Contents/></ListBucketResult>`,
		`<ListBucketResult><Contents><Key>a&amp;&#65;&#x41;&lt;</Key></Contents></ListBucketResult>`,
		`<ListBucketResult><Contents><Key>a&nbsp;</Key></Contents></ListBucketResult>`,
		`<ListBucketResult><Contents><Owner><ID>1</ID></Owner><Size>-1</Size></Contents></ListBucketResult>`,
		`<ListBucketResult><CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes><!-- c --></ListBucketResult>`,
		`<ListBucketResult xmlns="x" ><Contents ><Key >a</Key></Contents></ListBucketResult >`,
		`<a><a><a></a>`, `<ListBucketResult><Contents><Key>a<b/></Key></Contents></ListBucketResult>`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, doc string) {
		l := listing{b: &bucket{}, root: "ListBucketResult"}
		if err := l.parse(doc); err != nil {
			return
		}
		var want struct {
			Contents       []struct{ Key string }
			CommonPrefixes []struct{ Prefix string }
		}
		if err := xml.Unmarshal([]byte(doc), &want); err != nil {
			return // the scanner is less strict
		}
		if l.encoded || strings.ContainsAny(doc, "\r!?:") || strings.Count(doc, "<ListBucketResult") != 1 {
			return // the parser normalizes, or sees another document
		}
		if len(l.entries) != len(want.Contents) {
			t.Fatalf("%d entries, want %d", len(l.entries), len(want.Contents))
		}
	})
}

func TestListingIsReadWhole(t *testing.T) {
	doc := page(1000)
	var want struct {
		Contents []struct {
			Key  string
			Size int64
			ETag string
		}
	}
	if err := xml.Unmarshal([]byte(doc), &want); err != nil {
		t.Fatal(err)
	}
	l := listing{b: &bucket{}, root: "ListBucketResult"}
	if err := l.parse(doc); err != nil {
		t.Fatal(err)
	}
	for i, w := range want.Contents {
		if e := l.entries[i]; e.Key != w.Key || e.Size != w.Size || e.ETag != unquote(&w.ETag) {
			t.Errorf("%+v, want %+v", e, w)
		}
	}
	// No beginning of it passes for the whole.
	small := page(3)
	for n := range small {
		cut := listing{b: &bucket{}, root: "ListBucketResult"}
		if err := cut.parse(small[:n]); !errors.Is(err, errXML) {
			t.Fatalf("cut after %d bytes: %v", n, err)
		}
	}
	deep := listing{b: &bucket{}, root: "ListBucketResult"}
	if err := deep.parse("<ListBucketResult>" + strings.Repeat("<a>", 1<<16)); !errors.Is(err, errXML) {
		t.Errorf("a deep document: %v", err)
	}
}

func BenchmarkListing(b *testing.B) {
	doc := page(1000)
	b.SetBytes(int64(len(doc)))
	for b.Loop() {
		l := listing{b: &bucket{}, root: "ListBucketResult"}
		if err := l.parse(doc); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkListingByStandardLibrary(b *testing.B) {
	doc := page(1000)
	for b.Loop() {
		d := xml.NewDecoder(strings.NewReader(doc))
		for {
			if _, err := d.Token(); err == io.EOF {
				break
			}
		}
	}
}
