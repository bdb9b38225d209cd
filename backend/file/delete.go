package file

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/backend"
)

func (b *bucket) Delete(ctx context.Context, key string, cond backend.Cond) error {
	if cond.IfAbsent {
		return backend.Fail("delete", key, backend.ErrInvalid, errors.New("condition of absence"))
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.checkKey("delete", key); err != nil {
		return err
	}
	folder, _ := split(key)
	errs, err := b.deleteIn(ctx, folder, []string{key}, cond)
	if err == nil {
		err = errs[0]
	}
	return b.fail("delete", key, err)
}

func (b *bucket) DeleteBatch(ctx context.Context, keys []string) ([]error, error) {
	if len(keys) > 1000 {
		return nil, backend.Fail("deletebatch", "", backend.ErrInvalid, fmt.Errorf("%d keys", len(keys)))
	}
	// Those of one directory go together, for one sync of it.
	errs := make([]error, len(keys))
	folders := map[string][]int{}
	for i, key := range keys {
		if errs[i] = b.checkKey("delete", key); errs[i] == nil {
			folder, _ := split(key)
			folders[folder] = append(folders[folder], i)
		}
	}
	for folder, indexes := range folders {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var group []string
		for _, i := range indexes {
			group = append(group, keys[i])
		}
		results, err := b.deleteIn(ctx, folder, group, backend.Cond{})
		for n, i := range indexes {
			if errs[i] = err; err == nil {
				errs[i] = results[n]
			}
			errs[i] = b.fail("delete", keys[i], errs[i])
		}
	}
	return errs, nil
}

// deleteIn deletes objects of one folder, and returns when that is on the disk.
func (b *bucket) deleteIn(ctx context.Context, folder string, keys []string, cond backend.Cond) ([]error, error) {
	errs := make([]error, len(keys))
	dir, err := b.openFolder(folder)
	if notThere(err) {
		if removed(b.root) {
			return nil, err
		}
		if cond.IfMatch != "" {
			for i := range errs {
				errs[i] = unix.ENOENT
			}
		}
		return errs, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	some := false
	for i, key := range keys {
		var gone bool
		gone, errs[i] = b.deleteOne(ctx, dir, key, cond)
		some = some || gone
	}
	// Also where nothing was there: somebody may have removed it a moment ago.
	if err := dir.Sync(); err != nil {
		return nil, err
	}
	if some {
		b.leaveFolder(ctx, folder)
	}
	return errs, nil
}

func (b *bucket) deleteOne(ctx context.Context, dir *os.File, key string, cond backend.Cond) (gone bool, err error) {
	unlock, err := b.lock(ctx, key)
	if err != nil {
		return false, err
	}
	defer unlock()
	_, name := split(key)
	o, err := openIn(dir, name, key)
	if notThere(err) {
		if cond.IfMatch != "" {
			return false, unix.ENOENT
		}
		return false, nil
	}
	if kind(err) == backend.ErrPermission && cond.IfMatch == "" {
		// It cannot be read, and may still be deleted.
		st, err := statAt(dir, name)
		if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || isMarker(key) {
			return false, unix.EACCES
		}
		return true, unlinkAt(dir, name, 0)
	}
	if err != nil {
		return false, err
	}
	defer o.f.Close()
	if cond.IfMatch != "" && cond.IfMatch != o.etag() {
		return false, backend.Fail("delete", key, backend.ErrPrecondition, nil)
	}
	if !isMarker(key) {
		return true, unlinkAt(dir, name, 0)
	}
	err = unlinkAt(dir, name, unix.AT_REMOVEDIR)
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		// The directory stays for what is in it, and is no object any more.
		if err = (record{nonce: newNonce(), fresh: o.fresh || !o.known}).write(o.f); err == nil {
			err = o.f.Sync()
		}
		return false, err
	}
	return err == nil, err
}
