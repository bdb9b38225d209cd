package fs

import (
	"context"
	"math"

	gofs "github.com/hanwen/go-fuse/v2/fs"

	"github.com/keifs/keifs/store"
)

// Flags of open(2), as the kernel sends them on Linux.
const (
	openAccess    = 0o3
	openWriteOnly = 0o1
	openReadWrite = 0o2
	openExclusive = 0o200
	openTruncate  = 0o1000
	openAppend    = 0o2000
)

// writes says whether a file is opened for writing. O_RDONLY|O_TRUNC does write.
func writes(flags uint32) bool {
	access := flags & openAccess
	return access == openWriteOnly || access == openReadWrite || flags&openTruncate != 0
}

// Modes of fallocate(2), and whence of lseek(2).
const (
	fallocKeepSize  = 0x01
	fallocPunchHole = 0x02
	fallocZeroRange = 0x10
	seekData        = 3
	seekHole        = 4
)

// Allocate implements gofs.FileAllocater. There is nothing to reserve in a
// bucket; what of it shows is the size, and zeros.
func (h *handle) Allocate(ctx context.Context, off, size uint64, mode uint32) errno {
	return h.n.errno("fallocate", h.allocate(steadfast(ctx), int64(off), int64(size), mode))
}

func (h *handle) allocate(ctx context.Context, off, size int64, mode uint32) error {
	switch mode {
	case 0, fallocKeepSize, fallocPunchHole | fallocKeepSize, fallocZeroRange, fallocZeroRange | fallocKeepSize:
	default:
		return store.ErrUnsupported
	}
	if off < 0 || size <= 0 || off > math.MaxInt64-size {
		return store.ErrInvalid
	}
	if mode == fallocKeepSize {
		return nil
	}
	if err := h.dropPrivileges(ctx); err != nil {
		return err
	}
	h.n.wrote()
	if mode&fallocKeepSize == 0 {
		e, err := h.file.Stat(ctx)
		if err != nil {
			return err
		}
		if end := off + size; e.Size < end {
			if _, err := h.file.SetAttr(ctx, store.AttrChange{Size: &end}); err != nil {
				return err
			}
		}
	}
	if mode&(fallocPunchHole|fallocZeroRange) == 0 {
		return nil
	}
	return h.file.Punch(ctx, off, size)
}

// Lseek implements gofs.FileLseeker, for SEEK_DATA and SEEK_HOLE; the kernel
// does the others.
func (h *handle) Lseek(ctx context.Context, off uint64, whence uint32) (uint64, errno) {
	if whence != seekData && whence != seekHole || off > math.MaxInt64 {
		return 0, h.n.errno("lseek", store.ErrInvalid)
	}
	ctx, done := h.n.m.patient(ctx)
	defer done()
	found, err := h.file.Seek(ctx, int64(off), whence == seekHole)
	return uint64(found), h.n.errno("lseek", err)
}

// maxCopy is the most bytes that the answer to copy_file_range(2) can name.
const maxCopy = 1<<32 - 1<<20

// CopyFileRange implements gofs.NodeCopyFileRanger: a copy within the bucket,
// where the volume can do it. Else the kernel copies by reading and writing.
func (n *fileNode) CopyFileRange(ctx context.Context, in gofs.FileHandle, inOff uint64,
	_ *gofs.Inode, out gofs.FileHandle, outOff, size, flags uint64) (uint32, errno) {
	src, ok1 := in.(*handle)
	dst, ok2 := out.(*handle)
	if !ok1 || !ok2 || flags != 0 || inOff > math.MaxInt64 || outOff > math.MaxInt64 {
		return 0, n.errno("copy_file_range", store.ErrInvalid)
	}
	ctx = steadfast(ctx)
	if err := dst.dropPrivileges(ctx); err != nil {
		return 0, n.errno("copy_file_range", err)
	}
	defer dst.n.change()()
	dst.n.wrote()
	done, err := dst.file.CopyFrom(ctx, src.file, int64(inOff), int64(outOff), int64(min(size, maxCopy)))
	return uint32(done), n.errno("copy_file_range", err)
}
