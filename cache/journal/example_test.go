package journal_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/keifs/keifs/cache/journal"
)

// A program that ends before its work is done finds what it had promised.
func Example() {
	const kindRemove journal.Kind = 1
	dir, err := os.MkdirTemp("", "journal")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	opts := journal.Options{Store: "s3://bucket"}

	j, err := journal.Open(filepath.Join(dir, "journal"), opts)
	if err != nil {
		panic(err)
	}
	first, _ := j.Append(kindRemove, []byte("main/a.txt"))
	_, _ = j.Append(kindRemove, []byte("main/b.txt"))
	j.Done(first)
	j.Close()

	j, err = journal.Open(filepath.Join(dir, "journal"), opts)
	if err != nil {
		panic(err)
	}
	defer j.Close()
	_ = j.Replay(func(r journal.Record) error {
		fmt.Printf("still to be removed: %s\n", r.Data)
		j.Done(r.ID)
		return nil
	})
	// Output: still to be removed: main/b.txt
}
