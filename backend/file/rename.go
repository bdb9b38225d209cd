package file

import (
	"context"
	"errors"
	"os"

	"github.com/keifs/keifs/backend"
)

var _ backend.Renamer = (*bucket)(nil)

// Rename moves the file, whatever its size. It does not move markers: with
// one, the system would move what is in the directory as well.
func (b *bucket) Rename(ctx context.Context, src, dst string, cond backend.Cond) (backend.Info, error) {
	if err := b.checkKey("rename", src); err != nil {
		return backend.Info{}, err
	}
	if err := b.checkPut(ctx, "rename", dst, 0, backend.PutOptions{Cond: cond}); err != nil {
		return backend.Info{}, err
	}
	if isMarker(src) || isMarker(dst) {
		return backend.Info{}, backend.Fail("rename", src, backend.ErrUnsupported, errors.New("a folder marker"))
	}
	folder, name := split(src)
	from, err := b.openFolder(folder)
	if err != nil {
		return backend.Info{}, b.failMissing("rename", src, err)
	}
	defer from.Close()
	var o *object
	err = b.place(ctx, dst, cond, func(dir *os.File, target string) (err error) {
		if o, err = openIn(from, name, src); err != nil {
			return b.failMissing("rename", src, err)
		}
		defer o.f.Close()
		return publish(from, name, dir, target, cond.IfAbsent)
	}, src)
	if err != nil {
		return backend.Info{}, b.fail("rename", dst, err)
	}
	if err := from.Sync(); err != nil {
		return backend.Info{}, b.fail("rename", src, err)
	}
	b.leaveFolder(ctx, folder)
	o.key = dst
	return o.info(), nil
}
