package cache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// chunkSize is how many bytes of an object one chunk has; the last has less.
const chunkSize = 1 << 20

// chunkID is the hash of all that says what is in a chunk: bucket, key,
// version and index. What has an ID never changes, so no chunk is ever stale.
type chunkID [sha256.Size]byte

// chunks keeps pieces of object versions on disk, least recently used ones
// going first, and the hottest in memory. A chunk is a file named by its ID:
// the bytes, then CRC-32C of ID and bytes. It is only a cache: no failure of
// the disk fails a read, what is broken is fetched again.
type chunks struct {
	dir    string
	bucket string
	flight flights[chunkID, []byte]
	temp   atomic.Int64
	write  func(name string, parts ...[]byte) error // writeFile, but in tests of a full disk

	hits, misses, collapsed, corrupt, diskErrors atomic.Int64

	mu     sync.Mutex
	disk   *weighted[chunkID, struct{}]
	memory *weighted[chunkID, []byte]
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	chunkFooter = 4
	diskBlock   = 4096
	tempPrefix  = "tmp-"
)

// openChunks finds what an earlier owner of the folder left.
func openChunks(dir, bucket string, size, memory int64) (*chunks, error) {
	c := &chunks{dir: dir, bucket: bucket, write: writeFile}
	c.disk = newWeighted(max(size, 0), func(id chunkID, _ struct{}) { os.Remove(c.file(id)) })
	c.memory = newWeighted[chunkID, []byte](max(memory, 0), nil)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, diskError(err)
	}
	if err := c.scan(); err != nil {
		return nil, diskError(err)
	}
	return c, nil
}

// scan rebuilds the index from the folder. Files of the same age are in no
// particular order.
func (c *chunks) scan() error {
	type found struct {
		id   chunkID
		cost int64
		used time.Time
	}
	var all []found
	err := filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(c.dir, path)
		raw, err := hex.DecodeString(strings.Replace(rel, string(filepath.Separator), "", 1))
		if err != nil || len(raw) != len(chunkID{}) {
			if strings.HasPrefix(rel, tempPrefix) {
				os.Remove(path)
			}
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		all = append(all, found{chunkID(raw), diskCost(info.Size()), info.ModTime()})
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b found) int { return a.used.Compare(b.used) })
	for _, f := range all {
		c.disk.add(f.id, struct{}{}, f.cost)
	}
	return nil
}

func diskCost(size int64) int64 { return (size + diskBlock - 1) / diskBlock * diskBlock }

func (c *chunks) file(id chunkID) string {
	name := hex.EncodeToString(id[:])
	return filepath.Join(c.dir, name[:2], name[2:])
}

func (c *chunks) id(key, version string, index int64) chunkID {
	h := sha256.New()
	for _, s := range []string{c.bucket, key, version} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(s))))
		h.Write([]byte(s))
	}
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(index)))
	return chunkID(h.Sum(nil))
}

// get returns the chunk, of size bytes, from here or by fetch, which fills
// all of its argument. The result is shared: nobody may change it.
func (c *chunks) get(ctx context.Context, id chunkID, size int, fetch func(ctx context.Context, into []byte) error) ([]byte, error) {
	if data, ok := c.hot(id); ok {
		return data, nil
	}
	data, shared, err := c.flight.do(ctx, id, func(ctx context.Context, _ func() bool) ([]byte, error) {
		if data, ok := c.cached(id, size); ok {
			return data, nil
		}
		c.misses.Add(1)
		data := make([]byte, size)
		if err := fetch(ctx, data); err != nil {
			return nil, err
		}
		c.heat(id, data)
		c.keep(id, data)
		return data, nil
	})
	if shared {
		c.collapsed.Add(1)
	}
	return data, err
}

// cached returns the chunk if it is here.
func (c *chunks) cached(id chunkID, size int) ([]byte, bool) {
	if data, ok := c.hot(id); ok {
		return data, true
	}
	c.mu.Lock()
	_, ok := c.disk.get(id)
	c.mu.Unlock()
	if !ok {
		return nil, false
	}
	data, err := c.read(id, size)
	if err != nil {
		if errors.Is(err, errCorruptChunk) {
			c.corrupt.Add(1)
		} else {
			c.diskErrors.Add(1)
		}
		c.forget(id)
		return nil, false
	}
	c.hits.Add(1)
	c.heat(id, data)
	return data, true
}

func (c *chunks) hot(id chunkID) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	data, ok := c.memory.get(id)
	if ok {
		c.hits.Add(1)
		c.disk.get(id) // in use there too
	}
	return data, ok
}

func (c *chunks) heat(id chunkID, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cost := int64(len(data)); cost <= c.memory.max {
		c.memory.add(id, data, cost)
	}
}

func (c *chunks) forget(id chunkID) {
	os.Remove(c.file(id))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.disk.remove(id)
}

var errCorruptChunk = errors.New("corrupt chunk")

func (c *chunks) read(id chunkID, size int) ([]byte, error) {
	data, err := os.ReadFile(c.file(id))
	if err != nil {
		return nil, err
	}
	body := data[:max(0, len(data)-chunkFooter)]
	if len(body) != size || !bytes.Equal(data[size:], checksum(id, body)) {
		return nil, errCorruptChunk
	}
	return body, nil
}

func checksum(id chunkID, body []byte) []byte {
	sum := crc32.Update(crc32.Checksum(id[:], castagnoli), castagnoli, body)
	return binary.BigEndian.AppendUint32(nil, sum)
}

// keep writes the chunk to disk. It is complete before it has its name; it
// is not synced, as a torn one is found by its checksum.
func (c *chunks) keep(id chunkID, data []byte) {
	cost := diskCost(int64(len(data)) + chunkFooter)
	if cost > c.disk.max {
		return
	}
	name, temp := c.file(id), filepath.Join(c.dir, fmt.Sprintf("%s%d", tempPrefix, c.temp.Add(1)))
	err := c.write(temp, data, checksum(id, data))
	if err == nil {
		err = os.Rename(temp, name)
	}
	if errors.Is(err, fs.ErrNotExist) { // the first with that prefix
		if err = os.MkdirAll(filepath.Dir(name), 0o700); err == nil {
			err = os.Rename(temp, name)
		}
	}
	if err != nil {
		os.Remove(temp)
		c.diskErrors.Add(1)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.disk.add(id, struct{}{}, cost)
}

func writeFile(name string, parts ...[]byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if _, err := f.Write(p); err != nil {
			f.Close()
			return err
		}
	}
	return f.Close()
}

// close ends what is under way.
func (c *chunks) close() { c.flight.close() }

// relieve evicts about that many bytes from the disk; false if there is
// nothing to evict.
func (c *chunks) relieve(bytes int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.disk.shrink(max(0, c.disk.total-bytes))
}
