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
	errs, err := b.deleteIn(ctx, folder, []backend.Deletion{{Key: key, IfMatch: cond.IfMatch}})
	if err == nil {
		err = errs[0]
	}
	return b.fail("delete", key, err)
}

func (b *bucket) DeleteBatch(ctx context.Context, objects []backend.Deletion) ([]error, error) {
	if len(objects) > 1000 {
		return nil, backend.Fail("deletebatch", "", backend.ErrInvalid, fmt.Errorf("%d keys", len(objects)))
	}
	// Those of one directory go together, for one sync of it.
	errs := make([]error, len(objects))
	folders := map[string][]int{}
	for i, o := range objects {
		if errs[i] = b.checkKey("delete", o.Key); errs[i] == nil {
			folder, _ := split(o.Key)
			folders[folder] = append(folders[folder], i)
		}
	}
	for folder, indexes := range folders {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var group []backend.Deletion
		for _, i := range indexes {
			group = append(group, objects[i])
		}
		results, err := b.deleteIn(ctx, folder, group)
		for n, i := range indexes {
			if errs[i] = err; err == nil {
				errs[i] = results[n]
			}
			errs[i] = b.fail("delete", objects[i].Key, errs[i])
		}
	}
	return errs, nil
}

// deleteIn deletes objects of one folder, and returns when that is on the disk.
func (b *bucket) deleteIn(ctx context.Context, folder string, objects []backend.Deletion) ([]error, error) {
	errs := make([]error, len(objects))
	dir, err := b.openFolder(folder)
	if notThere(err) {
		if removed(b.root) {
			return nil, err
		}
		for i, o := range objects {
			if o.IfMatch != "" {
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
	for i, o := range objects {
		var gone bool
		gone, errs[i] = b.deleteOne(ctx, dir, o.Key, o.IfMatch)
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

func (b *bucket) deleteOne(ctx context.Context, dir *os.File, key, version string) (gone bool, err error) {
	unlock, err := b.lock(ctx, key)
	if err != nil {
		return false, err
	}
	defer unlock()
	_, name := split(key)
	o, err := openIn(dir, name, key)
	if notThere(err) {
		if version != "" {
			return false, unix.ENOENT
		}
		return false, nil
	}
	if kind(err) == backend.ErrPermission && version == "" {
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
	if version != "" && version != o.etag() {
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
