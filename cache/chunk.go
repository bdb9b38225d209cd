package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// An object version is kept by chunks, each a file, of which any blocks may be
// there: large, as a file costs more than what is in it. A block is what is
// fetched at least, and what has a checksum.
const (
	blockSize   = 128 << 10
	chunkBlocks = 64
	chunkSize   = chunkBlocks * blockSize
	diskRead    = 1 << 20  // bytes read from disk at once, at most; a part of a chunk
	smallRead   = 32 << 10 // bytes; what is less of a block is not compared with its checksum each time
)

// chunkID is the hash of all that says what is in a chunk: bucket, key,
// version and index. What has an ID never changes, so no chunk is ever stale.
type chunkID [sha256.Size]byte

// blockSet says which blocks of a chunk are there.
type blockSet uint64

// run is the set of the blocks [from, end).
func run(from, end int) blockSet { return blockSet(1)<<end - blockSet(1)<<from }

// held is what is known of a chunk on disk.
type held struct {
	blocks blockSet
	whole  blockSet  // of them, those that this process wrote or has compared with their checksums
	file   uint64    // number of the file, as the next chunk of that ID has another
	known  bool      // what the file says of its blocks has been read
	since  time.Time // when it came; zero where another process left it
}

// chunks keeps pieces of object versions on disk, least recently used chunks
// going first. It is only a cache: no failure of the disk fails a read, what is
// broken is fetched again.
type chunks struct {
	dir     string
	bucket  string
	scratch sync.Pool                                         // of *[diskRead + 2*blockSize]byte
	write   func(f *os.File, parts [][]byte, off int64) error // writeParts, but in tests of a full disk
	space   func() (free, all int64)                          // of the disk, in bytes

	corrupt, failed atomic.Int64

	mu    sync.Mutex // held too while a file of the index is removed
	disk  *segmented[chunkID, held]
	files uint64 // so many have been in the index
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	sumSize     = 4
	diskBlock   = 4096
	wantedAgain = time.Minute
	leastFree   = 1 << 30 // bytes of the disk; or a twentieth of it, where that is less
)

// openChunks finds what an earlier owner of the folder left.
func openChunks(dir, bucket string, size int64) (*chunks, error) {
	c := &chunks{dir: dir, bucket: bucket, write: writeParts}
	c.space = c.statfs
	c.scratch.New = func() any { return new([diskRead + 2*blockSize]byte) }
	c.disk = newSegmented(max(size, 0), func(id chunkID, _ held) { os.Remove(c.file(id)) })
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
		raw, bad := hex.DecodeString(strings.Replace(rel, string(filepath.Separator), "", 1))
		if isChunk := bad == nil && len(raw) == len(chunkID{}); !isChunk {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		cost := diskCost(info.Size())
		if st, ok := info.Sys().(*syscall.Stat_t); ok { // it may have holes
			cost = min(cost, max(diskBlock, st.Blocks*512))
		}
		all = append(all, found{chunkID(raw), cost, info.ModTime()})
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b found) int { return a.used.Compare(b.used) })
	for _, f := range all {
		c.disk.add(f.id, held{file: c.nextLocked()}, f.cost)
	}
	return nil
}

func (c *chunks) nextLocked() uint64 {
	c.files++
	return c.files
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

// blocksOf is how many blocks a chunk of that size has.
func blocksOf(size int) int { return (size + blockSize - 1) / blockSize }

var errCorruptChunk = errors.New("corrupt chunk")

// present says which blocks of a chunk of that size are on disk. It reads the
// file the first time.
func (c *chunks) present(id chunkID, size int) blockSet {
	c.mu.Lock()
	h, ok := c.disk.get(id)
	c.mu.Unlock()
	if !ok || h.known {
		return h.blocks
	}
	sums, err := c.sums(id, size)
	if err != nil {
		c.broken(id, err)
		return 0
	}
	for i := range blocksOf(size) {
		if binary.BigEndian.Uint32(sums[i*sumSize:]) != 0 {
			h.blocks |= run(i, i+1)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now, ok := c.disk.get(id); ok && now.file == h.file {
		now.blocks |= h.blocks
		now.known = true
		c.disk.set(id, now)
	}
	return h.blocks
}

// read fills p, of at most diskRead bytes, from blocks, which are present, of a
// chunk of that size on disk. It says whether they were still there, and whole.
func (c *chunks) read(id chunkID, size int, p []byte, off int) bool {
	from, end := off/blockSize, blocksOf(off+len(p))
	start, stop := from*blockSize, min(end*blockSize, size)
	part, blocks := start != off || stop != off+len(p), run(from, end)
	file, whole := c.whole(id, blocks)
	if whole && part && len(p) <= smallRead {
		err := c.readPart(id, p, int64(off))
		if now, still := c.whole(id, blocks); !still || now != file {
			return false // perhaps that was its successor
		}
		if err != nil {
			c.broken(id, err)
			return false
		}
		c.used(id)
		return true
	}
	buf := p
	if part {
		all := c.scratch.Get().(*[diskRead + 2*blockSize]byte)
		defer c.scratch.Put(all)
		buf = all[:stop-start]
	}
	if err := c.readBlocks(id, size, buf, from); err != nil {
		c.broken(id, err)
		return false
	}
	if part {
		copy(p, buf[off-start:])
		c.compared(id, file, blocks)
	}
	c.used(id)
	return true
}

// whole says whether the blocks are known to be as they were fetched, and in
// which file.
func (c *chunks) whole(id chunkID, blocks blockSet) (file uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h, there := c.disk.peek(id)
	return h.file, there && h.whole&blocks == blocks
}

// compared notes that the blocks of that file are as they were fetched.
func (c *chunks) compared(id chunkID, file uint64, blocks blockSet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h, ok := c.disk.peek(id); ok && h.file == file {
		h.whole |= blocks
		c.disk.set(id, h)
	}
}

// used notes that a chunk was read from disk. Who reads a file once does so in
// short order; one that is read later is wanted again. The file's time tells it
// to the next process.
func (c *chunks) used(id chunkID) {
	now := time.Now()
	c.mu.Lock()
	h, ok := c.disk.peek(id)
	again := ok && now.Sub(h.since) >= wantedAgain
	if again {
		h.since = now
		c.disk.set(id, h)
		c.disk.prove(id)
	}
	c.mu.Unlock()
	if again {
		_ = os.Chtimes(c.file(id), now, now) // it may have been evicted just now
	}
}

// broken forgets a chunk that could not be read.
func (c *chunks) broken(id chunkID, err error) {
	if errors.Is(err, errCorruptChunk) {
		c.corrupt.Add(1)
	} else {
		c.failed.Add(1)
	}
	c.forget(id)
}

func (c *chunks) forget(id chunkID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	os.Remove(c.file(id))
	c.disk.remove(id)
}

// keeps says whether anything is kept.
func (c *chunks) keeps() bool { return c.disk.max > 0 }

// keep writes blocks of a chunk of that size to disk. Nothing is synced, as
// what is torn is found by its checksum. direct: past the kernel's cache, as
// fast as the disk is.
func (c *chunks) keep(id chunkID, size, from int, blocks []*block, direct bool) {
	sums := int64(blocksOf(size) * sumSize)
	if len(blocks) == 0 || diskCost(int64(size)+sums) > c.disk.max || !c.roomy() {
		return
	}
	f, err := c.openChunk(id)
	if err != nil {
		c.failed.Add(1)
		c.forget(id)
		return
	}
	defer f.Close() // to the end: as long as it is open, no other file gets its number
	file, err := c.writeBlocks(f, id, size, from, blocks, direct)
	if err != nil {
		c.failed.Add(1)
		c.forget(id)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now, err := os.Stat(c.file(id)); err != nil || !os.SameFile(file, now) {
		return // removed while it was written
	}
	h, old := c.disk.get(id)
	if !old {
		h.since, h.file = time.Now(), c.nextLocked()
	}
	cost := c.disk.cost(id)
	added := run(from, from+len(blocks)) &^ h.blocks
	h.blocks |= added
	h.whole |= added
	h.known = h.known || !old
	if h.blocks == run(0, blocksOf(size)) {
		cost = diskCost(int64(size) + sums)
	} else {
		cost = min(diskCost(int64(size)+sums), cost+int64(bits.OnesCount64(uint64(added)))*blockSize+diskBlock)
	}
	c.disk.add(id, h, cost)
}

// roomy says whether the disk has room for a chunk beside what is to be left
// free. Chunks make room for one another, and for what others write.
func (c *chunks) roomy() bool {
	free, all := c.space()
	lacking := min(leastFree, all/20) + chunkSize - free
	return lacking <= 0 || c.relieve(lacking)
}

// statfs is the free space of the disk, and all of it; with nothing at all
// where it cannot be found out, which leaves it to writing to fail.
func (c *chunks) statfs() (free, all int64) {
	var st unix.Statfs_t
	if unix.Statfs(c.dir, &st) != nil {
		return chunkSize, 0
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize
}

// relieve evicts about that many bytes from the disk; false if there is
// nothing to evict.
func (c *chunks) relieve(bytes int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.disk.shrink(max(0, c.disk.total()-bytes))
}
