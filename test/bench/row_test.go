package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// row is one piece of work, done by plain requests and through a mount.
type row struct {
	name, section, label, target string
	profile                      Profile
	flags                        []string // of keifs mount

	// data makes what is only read; fixture what the work of one side changes,
	// below a folder of its own. Neither is counted.
	data    func(s *site) error
	fixture func(c *Client, folder string) error
	// before is done through another mount with the same cache, and is not counted.
	before func(s *site, dir string) error
	// warm is done through the same mount, and is not counted.
	warm func(s *site, dir string) error

	// plain and run do the work below a folder: of the bucket, or of the
	// mount. They return how much they did, where that is not fixed.
	plain func(s *site, c *Client, folder string) (int64, error)
	run   func(s *site, dir string) (int64, error)
	// holds says whether the bucket is as it has to be in the end.
	holds func(c *Client, folder string) (bool, error)
}

const (
	rounds   = 3 // of waiting, in a row, that show the end of changes
	patience = 3 * time.Minute
)

func BenchmarkWork(b *testing.B) {
	s := openSite(b)
	names := strings.FieldsFunc(*only, func(r rune) bool { return r == ',' })
	for _, r := range rows() {
		if i := slices.Index(names, r.name); i >= 0 {
			names = slices.Delete(names, i, i+1)
		} else if *only != "" {
			continue
		}
		b.Run(r.name, func(b *testing.B) {
			for range b.N {
				raw, keifs := s.measure(&r)
				table.Add(r.name, r.section, r.label, r.target, raw, keifs)
				if err := errors.Join(raw.Err, keifs.Err); err != nil {
					b.Log(err)
					continue
				}
				b.ReportMetric(raw.Whole.Seconds()/keifs.Whole.Seconds(), "of-plain")
				b.ReportMetric(keifs.Cost.CPU.Seconds(), "cpu-s")
				b.ReportMetric(float64(keifs.Cost.Peak>>20), "MiB")
			}
		})
	}
	if len(names) > 0 {
		b.Errorf("no such rows: %s", names)
	}
}

func rows() []row {
	return append(append(readRows(), writeRows()...), treeRows()...)
}

// measure does the work both ways.
func (s *site) measure(r *row) (raw, keifs Figures) {
	if r.data != nil {
		if err := r.data(s); err != nil {
			return Figures{Err: err}, Figures{}
		}
	}
	if raw.Err = s.measurePlain(r, &raw); raw.Err == nil {
		keifs.Err = s.measureMount(r, &keifs)
	}
	return raw, keifs
}

// folder makes a place for the work of one side, in a branch of its own: what
// one row stores does not change what the next has to ask for.
func (s *site) folder(r *row) (string, error) {
	s.seq++
	branch := fmt.Sprintf("work%d/", s.seq)
	folder := branch + "here"
	if err := s.near().put(branch, nil); err != nil || r.fixture == nil {
		return folder, err
	}
	return folder, r.fixture(s.near(), folder)
}

func (s *site) measurePlain(r *row, f *Figures) error {
	folder, err := s.folder(r)
	if err != nil {
		return err
	}
	if err := s.reset(r.profile); err != nil {
		return err
	}
	cpu, start := ownCPU(), time.Now()
	n, err := r.plain(s, s.far(), folder)
	if err != nil {
		return fmt.Errorf("plain: %w", err)
	}
	f.done(start, n)
	f.Cost.CPU = ownCPU() - cpu
	f.Count, err = s.count()
	return err
}

func ownCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// done notes the end of work. Where its amount is not fixed, the times are for
// a thousand.
func (f *Figures) done(start time.Time, n int64) {
	f.Took = time.Since(start)
	if n > 0 {
		f.Rate = fmt.Sprintf("%.0f/s", float64(n)/f.Took.Seconds())
		f.Took = f.Took * 1000 / time.Duration(n)
	}
	f.Whole = f.Took
}

func (s *site) measureMount(r *row, f *Figures) (err error) {
	folder, err := s.folder(r)
	if err != nil {
		return err
	}
	if err := s.reset(Profile{}); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(s.dir, "mnt-")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	cache, err := os.MkdirTemp(s.dir, "cache-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(cache)
	flags := append([]string{"--cache-dir", cache}, r.flags...)
	work := filepath.Join(dir, folder)
	if r.before != nil {
		if err := s.mounted(dir, flags, func(*Daemon) error { return r.before(s, work) }); err != nil {
			return err
		}
		if err := dropPages(cache); err != nil {
			return err
		}
	}
	return s.mounted(dir, flags, func(d *Daemon) error {
		if r.warm != nil {
			if err := r.warm(s, work); err != nil {
				return err
			}
		}
		if err := s.reset(r.profile); err != nil {
			return err
		}
		before, err := costOf(d.pid)
		if err != nil {
			return err
		}
		start := time.Now()
		n, err := r.run(s, work)
		if err != nil {
			return err
		}
		f.done(start, n)
		if r.holds != nil {
			if f.Whole, err = s.settled(r, start, folder); err != nil {
				return err
			}
			f.Whole = max(f.Whole, f.Took)
		}
		if f.Count, err = s.count(); err != nil {
			return err
		}
		f.Cost, err = costOf(d.pid)
		f.Cost.CPU -= before.CPU
		return err
	})
}

// mounted does something while the bucket is mounted.
func (s *site) mounted(dir string, flags []string, fn func(*Daemon) error) error {
	d, err := s.command.mount("s3://"+bucket, dir, flags...)
	if err != nil {
		return err
	}
	err = fn(d)
	if e := s.reset(Profile{}); e != nil { // what is left is not counted
		err = errors.Join(err, e)
	}
	return errors.Join(err, d.umount())
}

// settled waits until the bucket is as it has to be, and returns when the last
// change was made. It looks past the proxy.
func (s *site) settled(r *row, start time.Time, folder string) (time.Duration, error) {
	c := s.near()
	for deadline := time.Now().Add(patience); ; {
		count, err := s.count()
		if err != nil {
			return 0, err
		}
		if count.Changing == 0 && time.Since(count.LastChange) > rounds*20*time.Millisecond {
			ok, err := r.holds(c, folder)
			if err != nil || ok {
				return count.LastChange.Sub(start), err
			}
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("not all in the bucket after %v", patience)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
