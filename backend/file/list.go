package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/backend"
)

// pageSize is large because each page reads its directory anew.
const pageSize = 5000

// ListPage walks the tree in the order of the keys: a directory counts with
// its '/', so "a-b" comes before what is in "a". A token is the last entry of
// the page before.
func (b *bucket) ListPage(ctx context.Context, opts backend.ListOptions) (backend.Page, error) {
	if opts.Limit < 0 {
		return backend.Page{}, backend.Fail("list", opts.Prefix, backend.ErrInvalid, fmt.Errorf("limit %d", opts.Limit))
	}
	if opts.Token == "" {
		opts.Token = opts.After
	}
	l := &lister{ctx: ctx, opts: opts, limit: pageSize, page: backend.Page{Date: time.Now()}}
	if opts.Limit > 0 {
		l.limit = min(pageSize, opts.Limit)
	}
	folder := opts.Prefix[:strings.LastIndexByte(opts.Prefix, '/')+1]
	if folder != "" && badPath(folder) != "" {
		return backend.Page{}, ctx.Err()
	}
	dir, err := b.openFolder(folder)
	if notThere(err) && !removed(b.root) {
		return backend.Page{}, ctx.Err()
	}
	if err != nil {
		return backend.Page{}, b.fail("list", opts.Prefix, err)
	}
	defer dir.Close()
	if err = l.folder(dir, folder); err == nil && removed(b.root) {
		err = unix.ENOENT
	}
	if err != nil && !errors.Is(err, errFull) {
		return backend.Page{}, b.fail("list", opts.Prefix, err)
	}
	return l.page, nil
}

type lister struct {
	ctx   context.Context
	opts  backend.ListOptions
	limit int
	page  backend.Page
	last  string // entry of the page
}

var errFull = errors.New("the page is full")

// add makes room for one more entry, or ends the page.
func (l *lister) add(entry string) error {
	if len(l.page.Objects)+len(l.page.Prefixes) == l.limit {
		l.page.Next = l.last
		return errFull
	}
	l.last = entry
	return nil
}

// folder lists the directory of that key, which is empty or ends in '/', and
// what is below it.
func (l *lister) folder(dir *os.File, key string) error {
	if err := l.ctx.Err(); err != nil {
		return err
	}
	if key != "" && strings.HasPrefix(key, l.opts.Prefix) && key > l.opts.Token {
		if err := l.marker(dir, key); err != nil {
			return err
		}
	}
	entries, err := readNames(dir, 0)
	if err != nil {
		return err
	}
	wanted := entries[:0]
	for _, e := range entries {
		if e.kind == unix.DT_DIR {
			e.name += "/"
		}
		if l.wants(key+e.name, e.kind) {
			wanted = append(wanted, e)
		}
	}
	slices.SortFunc(wanted, func(a, b dirent) int { return strings.Compare(a.name, b.name) })
	for _, e := range wanted {
		if e.kind == unix.DT_DIR {
			err = l.below(dir, e.name, key+e.name)
		} else {
			err = l.object(dir, e.name, key+e.name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// wants says whether the entry, or something below it, belongs on the page.
func (l *lister) wants(entry string, kind byte) bool {
	switch kind {
	case unix.DT_REG:
		return strings.HasPrefix(entry, l.opts.Prefix) && entry > l.opts.Token
	case unix.DT_DIR:
		if entry == reserved+"/" {
			return false
		}
		return (strings.HasPrefix(entry, l.opts.Prefix) || strings.HasPrefix(l.opts.Prefix, entry)) &&
			(entry > l.opts.Token || strings.HasPrefix(l.opts.Token, entry))
	}
	return false
}

// marker lists the directory itself, if it is an object.
func (l *lister) marker(dir *os.File, key string) error {
	o, err := stat(key, dir)
	if err != nil {
		return err
	}
	if is, err := o.isMarker(); err != nil || !is {
		return err
	}
	if err := l.add(key); err != nil {
		return err
	}
	l.page.Objects = append(l.page.Objects, o.listed())
	return nil
}

// below lists a directory: as a common prefix, or by what is in it.
func (l *lister) below(dir *os.File, name, key string) error {
	collapse := l.opts.Delimited && strings.HasPrefix(key, l.opts.Prefix) && key != l.opts.Prefix
	if collapse && key <= l.opts.Token {
		return nil
	}
	name = strings.TrimSuffix(name, "/")
	if !collapse {
		sub, err := openDir(dir, name)
		if notThere(err) {
			return nil // gone since its name was read
		}
		if err != nil {
			return err
		}
		defer sub.Close()
		return l.folder(sub, key)
	}
	if some, err := l.some(dir, name); err != nil || !some {
		return err
	}
	if err := l.add(key); err != nil {
		return err
	}
	l.page.Prefixes = append(l.page.Prefixes, key)
	return nil
}

// some says whether there is any object in the directory of that name, at any
// depth. One that cannot be looked into counts as if there were.
func (l *lister) some(parent *os.File, name string) (bool, error) {
	if err := l.ctx.Err(); err != nil {
		return false, err
	}
	dir, err := openDir(parent, name)
	switch {
	case notThere(err):
		return false, nil
	case kind(err) == backend.ErrPermission:
		return true, nil
	case err != nil:
		return false, err
	}
	defer dir.Close()
	r := readRecord(dir)
	if r.marker {
		return true, nil
	}
	// Mostly the first names tell, however many there are.
	isFile := func(e dirent) bool { return e.kind == unix.DT_REG }
	entries, err := readNames(dir, 1)
	if err != nil || len(entries) == 0 {
		return err == nil && !r.known, err
	}
	if slices.ContainsFunc(entries, isFile) {
		return true, nil
	}
	if entries, err = readNames(dir, 0); err != nil || slices.ContainsFunc(entries, isFile) {
		return err == nil, err
	}
	for _, e := range entries {
		if e.kind == unix.DT_DIR {
			if some, err := l.some(dir, e.name); some || err != nil {
				return some, err
			}
		}
	}
	return false, nil
}

// object lists a regular file.
func (l *lister) object(dir *os.File, name, key string) error {
	o, err := listedObject(dir, name, key)
	if notThere(err) {
		return nil // gone since its name was read
	}
	if err != nil {
		return err
	}
	if err := l.add(key); err != nil {
		return err
	}
	l.page.Objects = append(l.page.Objects, o.listed())
	return nil
}

// listedObject is without an open file, and so quicker than openIn.
func listedObject(dir *os.File, name, key string) (*object, error) {
	o := &object{key: key}
	fd, err := openFileFd(dir, name)
	switch {
	case err == nil:
		err = o.stat(fd)
		unix.Close(fd)
	case kind(err) == backend.ErrPermission:
		o.st, err = statAt(dir, name) // it is there, though not for us to read
	}
	if err == nil && o.st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = unix.ENOENT
	}
	return o, err
}
