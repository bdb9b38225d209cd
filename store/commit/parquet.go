package commit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"

	"github.com/keifs/keifs/backend"
)

// row is an entry as the columns of a range file have it. What most entries
// do not have is null.
type row struct {
	Path      string `parquet:"path,delta"`
	Type      string `parquet:"type,dict"`
	Size      int64  `parquet:"size,delta"`
	Mtime     int64  `parquet:"mtime,delta,timestamp(nanosecond)"`
	Mode      int32  `parquet:"mode,dict"`
	UID       int64  `parquet:"uid,dict"`
	GID       int64  `parquet:"gid,dict"`
	ETag      string `parquet:"etag"`
	Key       string `parquet:"key,delta"`
	VersionID string `parquet:"version_id,optional"`
	Target    string `parquet:"target,optional"`
	Xattr     string `parquet:"xattr,optional"`
	Modified  int64  `parquet:"modified,optional,delta,timestamp(nanosecond)"`
}

const (
	// maxRangeFile bounds what is read of a range, in bytes.
	maxRangeFile = 256 << 20
	// maxDecoded bounds what a range may need in memory, in bytes.
	maxDecoded = 1 << 30
	// groupRows are the rows of a row group: what a writer or a reader of
	// other people holds at a time.
	groupRows = 64 << 10
	batchRows = 512
)

// rangeData is a decoded range: the canonical encoding of its entries and
// where each one begins.
type rangeData struct {
	data    []byte
	offsets []uint32
}

func (d *rangeData) len() int { return len(d.offsets) }

func (d *rangeData) path(i int) []byte { return decodePath(d.data[d.offsets[i]:]) }

// raw is the canonical encoding of an entry.
func (d *rangeData) raw(i int) []byte {
	end := uint32(len(d.data))
	if i+1 < d.len() {
		end = d.offsets[i+1]
	}
	return d.data[d.offsets[i]:end]
}

func (d *rangeData) entry(i int) Entry {
	e, _ := decodeEntry(d.data[d.offsets[i]:])
	return e
}

// search is the index of the first entry whose path is not below path.
func (d *rangeData) search(path string) int {
	lo, hi := 0, d.len()
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if string(d.path(mid)) < path {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

func (d *rangeData) size() int64 { return int64(cap(d.data) + 4*cap(d.offsets)) }

// id is the name of a range with that canonical encoding.
func rangeID(canonical []byte) string { return sum(canonical) }

// encodeRange makes the file of a range from the canonical encoding of its entries.
func encodeRange(canonical []byte) ([]byte, error) {
	var file bytes.Buffer
	w := parquet.NewGenericWriter[row](&file,
		parquet.Compression(&zstd.Codec{Level: zstd.SpeedDefault}),
		parquet.MaxRowsPerRowGroup(groupRows),
		parquet.CreatedBy("keifs", "1", ""),
		parquet.KeyValueMetadata("keifs.format", "1"),
		parquet.ColumnPageBuffers(parquet.NewBufferPool()),
	)
	rows := make([]row, 0, batchRows)
	for len(canonical) > 0 {
		rows = rows[:0]
		for len(canonical) > 0 && len(rows) < batchRows {
			var e Entry
			e, canonical = decodeEntry(canonical)
			rows = append(rows, e.row())
		}
		if _, err := w.Write(rows); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return file.Bytes(), nil
}

func (e *Entry) row() row {
	r := row{
		Path: e.Path, Type: e.Kind(), Size: e.Size, Mtime: e.Mtime,
		Mode: int32(e.Mode), UID: int64(e.UID), GID: int64(e.GID),
		ETag: e.ETag, Key: e.Key, VersionID: e.VersionID, Target: e.Target, Xattr: e.Xattr,
	}
	if e.Modified != e.Mtime { // null says the same
		r.Modified = e.Modified
	}
	return r
}

func (r *row) entry() (Entry, error) {
	e := Entry{
		Path: r.Path, Size: r.Size, Mtime: r.Mtime, Mode: uint32(r.Mode), UID: uint32(r.UID), GID: uint32(r.GID),
		ETag: r.ETag, Key: r.Key, VersionID: r.VersionID, Target: r.Target, Xattr: r.Xattr, Modified: r.Modified,
	}
	if e.Modified == 0 {
		e.Modified = e.Mtime
	}
	if int64(e.UID) != r.UID || int64(e.GID) != r.GID || r.Type != e.Kind() {
		return e, fmt.Errorf("%.200q: owner or type: %w", r.Path, errEntry)
	}
	return e, e.check()
}

// decodeRange reads the file of a range and checks all of it. The library
// that reads the columns panics on some malformed files.
func decodeRange(file []byte, desc Range) (d *rangeData, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("malformed: %v", p)
		}
		if err != nil {
			d, err = nil, fmt.Errorf("range %.12s: %w: %w", desc.ID, backend.ErrCorrupt, err)
		}
	}()
	f, err := parquet.OpenFile(bytes.NewReader(file), int64(len(file)),
		parquet.SkipBloomFilters(true), parquet.SkipPageIndex(true))
	if err != nil {
		return nil, err
	}
	if f.NumRows() != desc.Entries || desc.Entries > MaxRange {
		return nil, fmt.Errorf("%d rows", f.NumRows())
	}
	if err := checkSize(f, int64(len(file))); err != nil {
		return nil, err
	}
	reader := parquet.NewGenericReader[row](f)
	defer reader.Close()
	d = &rangeData{offsets: make([]uint32, 0, desc.Entries), data: make([]byte, 0, 160*desc.Entries)}
	var size int64
	last := ""
	rows := make([]row, batchRows)
	for {
		n, err := reader.Read(rows)
		for i := range rows[:n] {
			e, err := rows[i].entry()
			switch {
			case err != nil:
				return nil, err
			case e.Path <= last:
				return nil, fmt.Errorf("%.200q: not sorted", e.Path)
			case len(d.data) > math.MaxUint32-5*maxValue || size > math.MaxInt64-e.Size:
				return nil, errors.New("too large")
			}
			last = e.Path
			size += e.Size
			d.offsets = append(d.offsets, uint32(len(d.data)))
			d.data = e.append(d.data)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, io.ErrNoProgress
		}
	}
	switch {
	case int64(d.len()) != desc.Entries || string(d.path(0)) != desc.First || last != desc.Last || size != desc.Bytes:
		return nil, errors.New("not as described")
	case rangeID(d.data) != desc.ID:
		return nil, errors.New("not what the id names")
	}
	return d, nil
}

// checkSize refuses files that say they unpack to more than a range can need.
func checkSize(f *parquet.File, size int64) error {
	var total int64
	for _, group := range f.Metadata().RowGroups {
		for _, c := range group.Columns {
			n := c.MetaData.TotalUncompressedSize
			if n < 0 || c.MetaData.TotalCompressedSize < 0 || c.MetaData.TotalCompressedSize > size {
				return errors.New("sizes of columns")
			}
			if total += n; total > maxDecoded {
				return errors.New("too large")
			}
		}
	}
	return nil
}

// load is the decoded range, remembered.
func (r *Repo) load(ctx context.Context, desc Range) (*rangeData, error) {
	v, err := r.cache.get(ctx, desc.ID, func(ctx context.Context) (any, int64, error) {
		d, err := r.fetch(ctx, desc)
		if err != nil {
			return nil, 0, err
		}
		return d, d.size(), nil
	})
	if err != nil {
		return nil, err
	}
	return v.(*rangeData), nil
}

func (r *Repo) fetch(ctx context.Context, desc Range) (*rangeData, error) {
	file, _, err := backend.ReadAll(ctx, r.b, RangeKey(desc.ID), maxRangeFile)
	if err != nil {
		return nil, fmt.Errorf("range %.12s: %w", desc.ID, err)
	}
	return decodeRange(file, desc)
}
