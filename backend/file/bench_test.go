package file

import (
	"fmt"
	"testing"

	"github.com/keifs/keifs/backend"
)

func BenchmarkPut(b *testing.B) {
	bk, err := open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer bk.Close()
	n := 0
	for b.Loop() {
		n++
		if _, err := bk.Put(b.Context(), fmt.Sprintf("dir/sub/%d", n), backend.Bytes(make([]byte, 4096)), backend.PutOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStat(b *testing.B) {
	bk, err := open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer bk.Close()
	if _, err := bk.Put(b.Context(), "dir/sub/a", backend.Bytes(make([]byte, 4096)), backend.PutOptions{}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := bk.Stat(b.Context(), "dir/sub/a"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkList5000(b *testing.B) {
	bk, err := open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer bk.Close()
	for i := range 5000 {
		if _, err := bk.Put(b.Context(), fmt.Sprintf("dir/%d", i), backend.Bytes(nil), backend.PutOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if p, err := bk.ListPage(b.Context(), backend.ListOptions{Prefix: "dir/"}); err != nil || len(p.Objects) != 5000 {
			b.Fatal(err, len(p.Objects))
		}
	}
}
