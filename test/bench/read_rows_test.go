package bench

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Where a store is.
var (
	remote = Profile{Lag: 20 * time.Millisecond, Rate: 90e6}
	capped = Profile{Lag: 20 * time.Millisecond, Rate: 20e6}
	local  = Profile{}
)

const (
	bigMiB  = 1024
	midMiB  = 256
	manyCat = 2000
)

func readRows() []row {
	const section = "Reading"
	big := func(s *site) error {
		return s.once("big", func(c *Client) error { return storeLarge(c, "data/tree/big", scaled(bigMiB)) })
	}
	mid := func(s *site) error {
		return s.once("mid", func(c *Client) error {
			for i := range 4 {
				if err := storeLarge(c, fmt.Sprint("data/tree/mid", i), scaled(midMiB)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	small := func(s *site) error {
		return s.once("small", func(c *Client) error {
			return storeSmall(c, "data/tree/small", scaled(manyCat), smallSize, smallName)
		})
	}
	stream := row{
		section: section, data: big,
		plain: func(_ *site, c *Client, _ string) (int64, error) {
			return 0, getAll(c, int64(scaled(bigMiB)*mib), "data/tree/big")
		},
		run: func(_ *site, dir string) (int64, error) {
			return 0, readLarge(filepath.Join(dir, "../../data/tree/big"), scaled(bigMiB))
		},
	}
	read1, read1capped, read1local := stream, stream, stream
	read1.name, read1.label, read1.profile = "read1", "cold sequential read of 1 GiB, 1 stream", remote
	read1.target = "≥ 0.6 × speed, ≤ 1.4 CPU-s, ≤ 256 MiB"
	read1capped.name, read1capped.label, read1capped.profile = "read1capped", "cold sequential read of 1 GiB, 1 stream, 20 MB/s a connection", capped
	read1capped.target = "≥ 0.9 × speed"
	read1local.name, read1local.label, read1local.profile = "read1local", "cold sequential read of 1 GiB, 1 stream, no lag", local
	read1local.target = "CPU counts"
	read4 := row{
		name: "read4", section: section, label: "cold sequential read of 4 × 256 MiB, 4 streams", profile: remote,
		target: read1.target, data: mid,
		plain: func(_ *site, c *Client, _ string) (int64, error) {
			return 0, getAll(c, int64(scaled(midMiB)*mib), "data/tree/mid0", "data/tree/mid1", "data/tree/mid2", "data/tree/mid3")
		},
		run: func(_ *site, dir string) (int64, error) {
			return 0, each(4, 4, func(i int) error {
				return readLarge(filepath.Join(dir, fmt.Sprint("../../data/tree/mid", i)), scaled(midMiB))
			})
		},
	}
	random := row{
		section: section, data: big, profile: remote,
		name: "random500", label: "cold random 4 KiB of 1 GiB, 16 threads, first 500 reads",
		target: "≥ 1 × speed, ≤ 64 MB down",
		plain: func(_ *site, c *Client, _ string) (int64, error) {
			_, err := randomly(500, time.Hour, c.randomRead)
			return 0, err
		},
		run: func(_ *site, dir string) (int64, error) {
			_, err := readRandomly(filepath.Join(dir, "../../data/tree/big"), 500, time.Hour)
			return 0, err
		},
	}
	const span = 6 * time.Second
	random6 := random
	random6.name, random6.label, random6.target = "random6s", "cold random 4 KiB of 1 GiB, 16 threads, 6 s (times: of 1,000 reads)", "≥ 20,000/s"
	random6.plain = func(_ *site, c *Client, _ string) (int64, error) { return randomly(0, span, c.randomRead) }
	random6.run = func(_ *site, dir string) (int64, error) {
		return readRandomly(filepath.Join(dir, "../../data/tree/big"), 0, span)
	}
	again := row{
		name: "reread", section: section, label: "re-read of 256 MiB from the cache after a remount (plain: a file on the local disk)",
		target: "≥ 0.9 × speed, no GET", profile: remote, data: mid,
		before: func(_ *site, dir string) error {
			return readLarge(filepath.Join(dir, "../../data/tree/mid0"), scaled(midMiB))
		},
		plain: func(s *site, _ *Client, _ string) (int64, error) {
			return 0, readLarge(filepath.Join(s.dir, "local"), scaled(midMiB))
		},
		run: func(_ *site, dir string) (int64, error) {
			return 0, readLarge(filepath.Join(dir, "../../data/tree/mid0"), scaled(midMiB))
		},
	}
	again.data = func(s *site) error {
		if err := mid(s); err != nil {
			return err
		}
		name := filepath.Join(s.dir, "local")
		if err := writeLarge(name, scaled(midMiB)); err != nil {
			return err
		}
		return dropPages(name)
	}
	cat := row{
		name: "cat", section: section, label: "cat of 2,000 small files one after another (plain: 64 at once)",
		target: "≥ 10 × one round trip a file: ≤ 4 s", profile: remote, data: small,
		plain: func(_ *site, c *Client, _ string) (int64, error) {
			return 0, each(scaled(manyCat), 64, func(i int) error {
				return c.get("data/tree/small/"+smallName(i), 0, smallSize, make([]byte, smallSize))
			})
		},
		run: func(_ *site, dir string) (int64, error) {
			return 0, bash(`cd "$1" && find . -type f -print0 | sort -z | xargs -0 -n 100 cat | wc -c | grep -qx "$2"`,
				filepath.Join(dir, "../../data/tree/small"), fmt.Sprint(scaled(manyCat)*smallSize))
		},
	}
	return []row{read1, read1capped, read1local, read4, random, random6, again, cat}
}

// getAll reads objects of that size, as parallel as it pays.
func getAll(c *Client, size int64, keys ...string) error {
	const piece = 8 * mib
	pieces := int((size + piece - 1) / piece)
	return each(pieces*len(keys), 32, func(i int) error {
		off := int64(i%pieces) * piece
		return c.get(keys[i/pieces], off, min(piece, size-off), make([]byte, 256<<10))
	})
}

const (
	randomSize    = 4096
	randomThreads = 16
)

func (c *Client) randomRead(block int64) error {
	return c.get("data/tree/big", block*randomSize, randomSize, make([]byte, randomSize))
}

// randomly reads blocks of the big file at random, as many as said (0 for no
// bound), for at most that time. It returns how many it read.
func randomly(count int64, span time.Duration, read func(block int64) error) (int64, error) {
	blocks := int64(scaled(bigMiB)) * mib / randomSize
	deadline := time.Now().Add(span)
	var begun, done atomic.Int64
	err := each(randomThreads, randomThreads, func(thread int) error {
		next := rand.New(rand.NewPCG(uint64(thread), 7))
		for time.Now().Before(deadline) && (count == 0 || begun.Add(1) <= count) {
			if err := read(next.Int64N(blocks)); err != nil {
				return err
			}
			done.Add(1)
		}
		return nil
	})
	return done.Load(), err
}

func readRandomly(name string, count int64, span time.Duration) (int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM); err != nil {
		return 0, err
	}
	return randomly(count, span, func(block int64) error {
		_, err := f.ReadAt(make([]byte, randomSize), block*randomSize)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	})
}
