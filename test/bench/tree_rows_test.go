package bench

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

const (
	manyFiles  = 20000
	manyRemove = 2000
	manyMove   = 1000
	manyGit    = 5000
	tinySize   = 100 // of the files that are only listed
	settled    = 4 * time.Second
)

func treeRows() []row {
	const section = "Trees"
	deep := func(s *site) error {
		return s.once("deep", func(c *Client) error { return storeSmall(c, "deep/tree", scaled(manyFiles), tinySize, deepName) })
	}
	flat := func(s *site) error {
		return s.once("flat", func(c *Client) error { return storeSmall(c, "flat/tree", scaled(manyFiles), tinySize, flatName) })
	}
	lines := func(dir, script string) error {
		return bash(script+` | wc -l | grep -qx "$2"`, dir, fmt.Sprint(scaled(manyFiles)))
	}
	findAll := func(_ *site, dir string) error {
		return lines(filepath.Join(dir, "../../deep/tree"), `find "$1" -type f`)
	}
	listAll := func(_ *site, dir string) error {
		return lines(filepath.Join(dir, "../../deep/tree"), `ls -lR "$1" | grep '^-'`)
	}
	listFlat := func(_ *site, dir string) error {
		return lines(filepath.Join(dir, "../../flat/tree"), `ls -l "$1" | grep '^-'`)
	}
	run := func(fn func(*site, string) error) func(*site, string) (int64, error) {
		return func(s *site, dir string) (int64, error) { return 0, fn(s, dir) }
	}

	find := row{
		section: section, profile: remote, data: deep,
		name: "find", label: "find over 20,000 files in 500 directories", target: "LISTs + 2, ≤ 1.5 × time, ≤ 0.6 CPU-s",
		plain: func(_ *site, c *Client, _ string) (int64, error) {
			return 0, listTree(c, "deep/tree/", scaled(manyFiles))
		},
		run: run(findAll),
	}
	lsR := find
	lsR.name, lsR.label, lsR.run = "lsR", "ls -lR over 20,000 files in 500 directories", run(listAll)
	again := find
	again.name, again.label, again.target = "findagain", "find again, `--metadata-ttl 1m` (plain: cold)", "no request, ≤ 20 µs an entry"
	again.flags = []string{"--metadata-ttl", "1m"}
	again.warm = findAll
	ls := row{
		section: section, profile: remote, data: flat,
		name: "ls", label: "ls -l of 20,000 files in one directory", target: "LISTs + 1, ≤ 1.3 × time",
		plain: func(_ *site, c *Client, _ string) (int64, error) {
			all, err := c.list("flat/tree/")
			if err == nil && len(all) != scaled(manyFiles) {
				err = fmt.Errorf("%d keys", len(all))
			}
			return 0, err
		},
		run: run(listFlat),
	}
	lsAgain := ls
	lsAgain.name, lsAgain.label, lsAgain.target, lsAgain.flags = "lsagain", "ls -l again, `--metadata-ttl 1m` (plain: cold)", again.target, again.flags
	lsAgain.warm = listFlat

	remove := row{
		section: section, profile: remote,
		name: "rm", label: "rm -rf of 2,000 files, in a directory that was listed before", target: "rm ≤ 0.5 s, ≤ 2 × time, ≤ 10 requests",
		fixture: func(c *Client, folder string) error {
			return errors.Join(storeSmall(c, folder+"/tree", scaled(manyRemove), smallSize, smallName), storeSmall(c, folder, 1, smallSize, flatName))
		},
		warm: func(_ *site, dir string) error { return bash(`ls -l "$1"`, dir) },
		plain: func(_ *site, c *Client, folder string) (int64, error) {
			all, err := c.list(folder + "/tree/")
			if err != nil {
				return 0, err
			}
			return 0, c.remove(all)
		},
		run:   func(_ *site, dir string) (int64, error) { return 0, bash(`rm -rf "$1/tree"`, dir) },
		holds: exactly("/tree", 0),
	}
	move := row{
		section: section, profile: remote,
		name: "mv", label: "mv of a directory of 1,000 files, beside which was listed before", target: "1,000 COPY and ≤ 5 others, ≤ 1.3 × time",
		fixture: func(c *Client, folder string) error {
			return storeSmall(c, folder+"/from", scaled(manyMove), smallSize, flatName)
		},
		warm: func(_ *site, dir string) error { return bash(`ls -l "$1"`, dir) },
		plain: func(_ *site, c *Client, folder string) (int64, error) {
			all, err := c.list(folder + "/from/")
			if err != nil {
				return 0, err
			}
			err = each(len(all), 64, func(i int) error {
				return c.copy(all[i].Key, folder+"/to/"+strings.TrimPrefix(all[i].Key, folder+"/from/"))
			})
			if err != nil {
				return 0, err
			}
			return 0, c.remove(all)
		},
		run: func(_ *site, dir string) (int64, error) { return 0, bash(`mv "$1/from" "$1/to"`, dir) },
		holds: func(c *Client, folder string) (bool, error) {
			if gone, err := exactly("/from", 0)(c, folder); err != nil || !gone {
				return false, err
			}
			return exactly("/to", scaled(manyMove))(c, folder)
		},
	}
	copied := row{
		section: section, profile: remote, flags: []string{"--write-back"},
		name: "cp", label: "cp -r of a directory of 1,000 files, `--write-back`", target: "≤ 3 × time",
		fixture: move.fixture,
		plain: func(_ *site, c *Client, folder string) (int64, error) {
			all, err := c.list(folder + "/from/")
			if err != nil {
				return 0, err
			}
			return 0, each(len(all), 64, func(i int) error {
				return c.copy(all[i].Key, folder+"/to/"+strings.TrimPrefix(all[i].Key, folder+"/from/"))
			})
		},
		run:   func(_ *site, dir string) (int64, error) { return 0, bash(`cp -r "$1/from" "$1/to"`, dir) },
		holds: exactly("/to", scaled(manyMove)),
	}
	return append([]row{find, lsR, again, ls, lsAgain, remove, move, copied}, programRows(section)...)
}

// programRows are of git and rsync, whose plain side is the local disk.
func programRows(section string) []row {
	const (
		clone  = `git clone -q "file://$1" "$2"`
		status = `git -C "$1" status --porcelain | wc -l | grep -qx 0`
	)
	repo := func(s *site) error {
		return s.once("repository", func(*Client) error {
			dir := filepath.Join(s.dir, "repository")
			if err := writeSmall(dir, scaled(manyGit), smallName); err != nil {
				return err
			}
			return bash(`cd "$1" && git init -q && git add . && git commit -qm files`, dir)
		})
	}
	git := row{
		section: section, profile: remote, flags: []string{"--write-back"}, data: repo,
		name: "clone", label: "git clone of 5,000 files, `--write-back` (plain: to the local disk)", target: "≤ 3 × time",
		plain: func(s *site, _ *Client, _ string) (int64, error) {
			return 0, bash(`rm -rf "$2"; `+clone, filepath.Join(s.dir, "repository"), filepath.Join(s.dir, "clone"))
		},
		run: func(s *site, dir string) (int64, error) {
			return 0, bash(`mkdir -p "$2"; `+clone, filepath.Join(s.dir, "repository"), dir)
		},
	}
	state := git
	state.name, state.label, state.target = "status", "git status, warm (plain: on the local disk)", "≤ 1.5 × time"
	state.plain = func(s *site, _ *Client, _ string) (int64, error) {
		return 0, bash(status, filepath.Join(s.dir, "repository"))
	}
	state.run = func(_ *site, dir string) (int64, error) { return 0, bash(status, dir) }
	state.warm = func(s *site, dir string) error {
		return bash(`mkdir -p "$2"; `+clone+`; `+strings.ReplaceAll(status, "$1", "$2"), filepath.Join(s.dir, "repository"), dir)
	}

	mirror := func(s *site, dir string) error {
		return bash(`rsync -a "$1/" "$2/"`, filepath.Join(s.dir, "mirrored"), dir)
	}
	unchanged := row{
		section: section, profile: remote,
		name: "rsync", label: "rsync -a of 5,000 unchanged files after a remount (plain: the LISTs)", target: "no HEAD, LISTs + 2",
		data: func(s *site) error { return writeSmall(filepath.Join(s.dir, "mirrored"), scaled(manyGit), smallName) },
		fixture: func(c *Client, folder string) error {
			body := noise(smallSize)
			err := each(scaled(manyGit), 32, func(i int) error { return c.putFile(folder+"/"+smallName(i), body, modified, 0o644) })
			time.Sleep(settled) // what is told of newer objects is not kept
			return err
		},
		plain: func(_ *site, c *Client, folder string) (int64, error) {
			_, err := c.list(folder + "/")
			return 0, err
		},
		before: mirror,
		run:    func(s *site, dir string) (int64, error) { return 0, mirror(s, dir) },
	}
	return []row{git, state, unchanged}
}

// listTree lists all below a prefix, the folders on top at once.
func listTree(c *Client, prefix string, n int) error {
	top, err := c.page(prefix, "/", "")
	if err != nil {
		return err
	}
	var found atomic.Int64
	err = each(len(top.CommonPrefixes), 16, func(i int) error {
		all, err := c.list(top.CommonPrefixes[i].Prefix)
		found.Add(int64(len(all)))
		return err
	})
	if err == nil && found.Load() != int64(n) {
		err = fmt.Errorf("%d keys", found.Load())
	}
	return err
}
