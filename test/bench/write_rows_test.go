package bench

import (
	"fmt"
	"os"
	"path/filepath"
)

const (
	manyUntar = 2000
	patchSize = 4096
	partMiB   = 16
)

// exactly says whether a folder of the bucket holds so many files.
func exactly(sub string, n int) func(*Client, string) (bool, error) {
	return func(c *Client, folder string) (bool, error) {
		all, err := c.list(folder + sub + "/")
		files := 0
		for _, o := range all {
			if o.Key[len(o.Key)-1] != '/' {
				files++
			}
		}
		return files == n, err
	}
}

func writeRows() []row {
	const section = "Writing"
	write := row{
		section: section,
		plain: func(_ *site, c *Client, folder string) (int64, error) {
			return 0, storeParallel(c, folder+"/big", scaled(bigMiB))
		},
		run: func(_ *site, dir string) (int64, error) {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return 0, err
			}
			return 0, writeLarge(filepath.Join(dir, "big"), scaled(bigMiB))
		},
		holds: exactly("", 1),
	}
	write1, writelocal := write, write
	write1.name, write1.label, write1.profile = "write", "sequential write of 1 GiB", remote
	write1.target = "≥ 0.9 × speed, ≤ 2 CPU-s, ≤ 256 MiB"
	writelocal.name, writelocal.label, writelocal.profile = "writelocal", "sequential write of 1 GiB, no lag", local
	writelocal.target = "CPU counts"

	mid := int64(scaled(midMiB)) * mib
	change := row{
		section: section, profile: remote, target: "≤ 8 requests, ≤ 8 MiB, ≤ 1.5 × time",
		fixture: func(c *Client, folder string) error { return storeLarge(c, folder+"/mid", scaled(midMiB)) },
	}
	add, patch := change, change
	add.name, add.label = "append", "append 1 B to 256 MiB"
	add.plain = func(_ *site, c *Client, folder string) (int64, error) {
		key := folder + "/mid"
		return 0, c.upload(key, []part{{copyFrom: key, n: mid}, {body: []byte{'X'}}}, 2)
	}
	add.run = func(_ *site, dir string) (int64, error) {
		return 0, changeAt(filepath.Join(dir, "mid"), -1, []byte{'X'})
	}
	add.holds = sizeIs("/mid", mid+1)
	patch.name, patch.label = "patch", "change 4 KiB in the middle of 256 MiB"
	patch.plain = func(_ *site, c *Client, folder string) (int64, error) {
		const piece = 5 * mib // the smallest part
		key, at := folder+"/mid", min(mid/2, mid-piece)
		if at < piece {
			return 0, fmt.Errorf("%d MiB are too few to be patched", mid/mib)
		}
		if err := c.get(key, at, piece, make([]byte, 256<<10)); err != nil {
			return 0, err
		}
		return 0, c.upload(key, []part{{copyFrom: key, n: at}, {body: make([]byte, piece)}, {copyFrom: key, off: at + piece, n: mid - at - piece}}, 3)
	}
	patch.run = func(_ *site, dir string) (int64, error) {
		return 0, changeAt(filepath.Join(dir, "mid"), mid/2, make([]byte, patchSize))
	}
	patch.holds = sizeIs("/mid", mid)

	tar := row{
		section: section, profile: remote,
		name: "untar", label: "untar 2,000 small files, `--write-back`",
		target: "tar ≤ 1 s, ≤ 1.3 × time, 2,000 PUT and ≤ 20 others", flags: []string{"--write-back"},
		data: func(s *site) error {
			tree := filepath.Join(s.dir, "untar")
			if err := writeSmall(tree, scaled(manyUntar), smallName); err != nil {
				return err
			}
			return bash(`tar -C "$1" -cf "$1.tar" .`, tree)
		},
		plain: func(_ *site, c *Client, folder string) (int64, error) {
			body := noise(smallSize)
			return 0, each(scaled(manyUntar), 64, func(i int) error { return c.put(folder+"/"+smallName(i), body) })
		},
		run: func(s *site, dir string) (int64, error) {
			return 0, bash(`mkdir -p "$1" && tar -C "$1" -xf "$2/untar.tar"`, dir, s.dir)
		},
		holds: exactly("", scaled(manyUntar)),
	}
	through := tar
	through.name, through.label, through.flags = "untarsync", "untar 2,000 small files, each `close` waiting for the bucket", nil
	through.target = ""
	return []row{write1, writelocal, add, patch, tar, through}
}

func sizeIs(name string, size int64) func(*Client, string) (bool, error) {
	return func(c *Client, folder string) (bool, error) {
		all, err := c.list(folder + name)
		return len(all) == 1 && all[0].Size == size, err
	}
}

// storeParallel makes an object of that many MiB, as parallel as it pays,
// without having it all in memory.
func storeParallel(c *Client, key string, size int) error {
	body := make([]byte, partMiB*mib)
	newContent().fill(body, 0)
	var parts []part
	for left := size * mib; left > 0; left -= len(body) {
		parts = append(parts, part{body: body[:min(left, len(body))]})
	}
	return c.upload(key, parts, 16)
}
