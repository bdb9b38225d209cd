package overlay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/keifs/keifs/backend"
)

// copyPart is the size in bytes of the parts by which a large object is copied.
const copyPart = 1 << 30

// pinSlowly makes a pin where one copy by the store does not do.
func (b *Bucket) pinSlowly(ctx context.Context, key, version, dst string) (there bool, err error) {
	info, err := b.raw.Stat(ctx, key)
	if gone(err) || err == nil && info.ETag != version {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if there, err := backend.Exists(ctx, b.raw, dst); err != nil || there {
		return there, err
	}
	opts := backend.PutOptions{Metadata: info.Metadata, ContentType: info.ContentType}
	assembler, ok := backend.As[backend.Assembler](b.raw)
	if ok && b.Caps().Copy && info.Size > 0 {
		err = b.pinInParts(ctx, assembler, info, dst, opts)
	} else {
		err = b.pinByHand(ctx, info, dst, opts)
	}
	if gone(err) {
		return false, nil
	}
	return err == nil, err
}

func (b *Bucket) pinInParts(ctx context.Context, assembler backend.Assembler, info backend.Info, dst string, opts backend.PutOptions) (err error) {
	a, err := assembler.Assemble(ctx, dst, opts)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Abort(context.WithoutCancel(ctx)))
		}
	}()
	part := int64(copyPart)
	if limit := b.Caps().MaxPart; limit > 0 {
		part = min(part, limit)
	}
	for n, off := 1, int64(0); off < info.Size; n, off = n+1, off+part {
		if err := a.CopyPart(ctx, n, info.Key, info.ETag, off, min(part, info.Size-off)); err != nil {
			return err
		}
	}
	_, err = a.Complete(ctx)
	return err
}

// pinByHand makes a pin by way of this machine.
func (b *Bucket) pinByHand(ctx context.Context, info backend.Info, dst string, opts backend.PutOptions) error {
	file, err := spare()
	if err != nil {
		return fmt.Errorf("pin %s: %w", info.Key, err)
	}
	defer file.Close()
	if err := b.raw.Get(ctx, info.Key, backend.GetOptions{IfMatch: info.ETag}, into(file)); err != nil {
		return err
	}
	_, err = b.raw.Put(ctx, dst, io.NewSectionReader(file, 0, info.Size), opts)
	return err
}

// spare is a file on the local disk that lives as long as it is open.
func spare() (*os.File, error) {
	file, err := os.CreateTemp("", "keifs-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// into writes a body to a file, from its beginning each time.
func into(file *os.File) func(backend.Info, io.Reader) error {
	return func(_ backend.Info, body io.Reader) error {
		_, err := io.Copy(io.NewOffsetWriter(file, 0), body)
		return err
	}
}
