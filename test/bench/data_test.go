package bench

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const mib = 1 << 20

// scaled is a number of files, a size in MiB and the like, at least 1.
func scaled(n int) int { return max(1, int(float64(n)*(*scale))) }

// noise is what contents are made of.
func noise(n int) []byte {
	p := make([]byte, n)
	src := rand.NewChaCha8([32]byte{1})
	src.Read(p)
	return p
}

// content makes and checks large contents: each MiB is noise that begins with
// its number.
type content struct{ noise []byte }

func newContent() *content { return &content{noise(mib)} }

func (c *content) fill(p []byte, first int) {
	for i := 0; len(p) > 0; i++ {
		n := copy(p, c.noise)
		var head [8]byte
		binary.BigEndian.PutUint64(head[:], uint64(first+i))
		copy(p, head[:])
		p = p[n:]
	}
}

func (c *content) check(p []byte, i int) error {
	if binary.BigEndian.Uint64(p) != uint64(i) || !bytes.Equal(p[8:], c.noise[8:len(p)]) {
		return fmt.Errorf("MiB %d is not what was stored", i)
	}
	return nil
}

// storeLarge makes an object of that many MiB.
func storeLarge(c *Client, key string, size int) error {
	const partSize = 16
	all := newContent()
	var parts []part
	for first := 0; first < size; first += partSize {
		p := part{body: make([]byte, min(partSize, size-first)*mib)}
		all.fill(p.body, first)
		parts = append(parts, p)
	}
	return c.upload(key, parts, 4)
}

// readLarge reads a file from begin to end and checks it.
func readLarge(name string, size int) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	all, buf := newContent(), make([]byte, mib)
	for i := 0; ; i++ {
		_, err := io.ReadFull(f, buf)
		if err == io.EOF && i == size {
			return nil
		}
		if err == nil {
			err = all.check(buf, i)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(name), err)
		}
	}
}

// writeLarge writes a file of that many MiB, and waits until it is stored.
func writeLarge(name string, size int) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	all, buf := newContent(), make([]byte, mib)
	for i := range size {
		all.fill(buf, i)
		if _, err := f.Write(buf); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return errors.Join(f.Sync(), f.Close())
}

// changeAt overwrites a part of a file, or appends where off is negative.
func changeAt(name string, off int64, data []byte) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if off < 0 {
		off, err = f.Seek(0, io.SeekEnd)
	}
	if err == nil {
		_, err = f.WriteAt(data, off)
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// dropPages makes the kernel forget the contents of the files in a folder, or
// of one file.
func dropPages(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := f.Sync(); err != nil {
			return err
		}
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	})
}

// modified is the time of files that are compared.
var modified = time.Unix(1_700_000_000, 0)

// smallSize is the size of a small file.
const smallSize = 4096

// smallName names the i-th of small files, a hundred in a folder.
func smallName(i int) string { return fmt.Sprintf("d%02d/f%04d", i/100, i) }

// deepName names the i-th of many files in 500 folders on two and three levels.
func deepName(i int) string {
	d := i / 40
	if d%2 == 0 {
		return fmt.Sprintf("a%02d/b%02d/f%02d", d/20, d%20, i%40)
	}
	return fmt.Sprintf("a%02d/b%02d/c%d/f%02d", d/20, d%20, d%3, i%40)
}

func flatName(i int) string { return fmt.Sprintf("file-%06d", i) }

// storeSmall makes n objects of that size below a folder.
func storeSmall(c *Client, folder string, n, size int, name func(int) string) error {
	body := noise(size)
	return each(n, 32, func(i int) error { return c.put(folder+"/"+name(i), body) })
}

// writeSmall makes n files in a local folder.
func writeSmall(dir string, n int, name func(int) string) error {
	body := noise(smallSize)
	for i := range n {
		full := filepath.Join(dir, name(i))
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(full, body, 0o644); err != nil {
			return err
		}
		if err := os.Chtimes(full, modified, modified); err != nil {
			return err
		}
	}
	return nil
}
