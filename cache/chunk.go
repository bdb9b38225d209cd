package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"io"
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
	diskRead    = 1 << 20 // bytes read from disk at once, at most; a part of a chunk
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
	known  bool      // what the file says of its blocks has been read
	since  time.Time // when it came; zero where another process left it
}

// chunks keeps pieces of object versions on disk, least recently used chunks
// going first. The file of a chunk is named by its ID: the blocks, each at its place, then for each a CRC-32C of
// ID, number and bytes, or 0 where the block is not there. It is only a cache:
// no failure of the disk fails a read, what is broken is fetched again.
type chunks struct {
	dir     string
	bucket  string
	scratch sync.Pool                                         // of *[diskRead + 2*blockSize]byte
	write   func(f *os.File, parts [][]byte, off int64) error // writeParts, but in tests of a full disk
	space   func() (free, all int64)                          // of the disk, in bytes

	corrupt, failed atomic.Int64

	mu   sync.Mutex
	disk *segmented[chunkID, held]
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
		c.disk.add(f.id, held{}, f.cost)
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
	if now, ok := c.disk.get(id); ok {
		h.blocks |= now.blocks
		h.known = true
		c.disk.set(id, h)
	}
	return h.blocks
}

func (c *chunks) sums(id chunkID, size int) ([]byte, error) {
	f, err := os.Open(c.file(id))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readSums(f, size)
}

// readSums reads the checksums behind the blocks. A file that is not as long
// as it has to be is corrupt.
func readSums(f *os.File, size int) ([]byte, error) {
	sums := make([]byte, blocksOf(size)*sumSize+1)
	n, err := f.ReadAt(sums, int64(size))
	if n == len(sums)-1 {
		return sums[:n], nil
	}
	if err == nil || n < len(sums) {
		err = errCorruptChunk
	}
	return nil, err
}

// read fills p, of at most diskRead bytes, from blocks, which are present, of a
// chunk of that size on disk. It says whether they were still there, and whole.
func (c *chunks) read(id chunkID, size int, p []byte, off int) bool {
	from, end := off/blockSize, blocksOf(off+len(p))
	start, stop := from*blockSize, min(end*blockSize, size)
	buf := p
	if start != off || stop != off+len(p) {
		all := c.scratch.Get().(*[diskRead + 2*blockSize]byte)
		defer c.scratch.Put(all)
		buf = all[:stop-start]
	}
	if err := c.readBlocks(id, size, buf, from); err != nil {
		c.broken(id, err)
		return false
	}
	if &buf[0] != &p[0] {
		copy(p, buf[off-start:])
	}
	c.used(id)
	return true
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

// readBlocks fills buf with whole blocks.
func (c *chunks) readBlocks(id chunkID, size int, buf []byte, from int) error {
	f, err := os.Open(c.file(id))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.ReadAt(buf, int64(from)*blockSize); err != nil {
		return err
	}
	sums, err := readSums(f, size)
	if err != nil {
		return err
	}
	for b := from; len(buf) > 0; b++ {
		body := buf[:min(blockSize, len(buf))]
		if checksum(id, b, body) != binary.BigEndian.Uint32(sums[b*sumSize:]) {
			return errCorruptChunk
		}
		buf = buf[len(body):]
	}
	return nil
}

// checksum is never 0.
func checksum(id chunkID, block int, body []byte) uint32 {
	sum := crc32.Update(0, castagnoli, id[:])
	sum = crc32.Update(sum, castagnoli, []byte{byte(block)})
	return max(1, crc32.Update(sum, castagnoli, body))
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
	os.Remove(c.file(id))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.disk.remove(id)
}

// keep writes blocks of a chunk of that size to disk. Nothing is synced, as
// what is torn is found by its checksum.
func (c *chunks) keep(id chunkID, size, from int, blocks [][]byte) {
	sums := int64(blocksOf(size) * sumSize)
	if len(blocks) == 0 || diskCost(int64(size)+sums) > c.disk.max || !c.roomy() {
		return
	}
	if err := c.writeBlocks(id, size, from, blocks); err != nil {
		c.failed.Add(1)
		c.forget(id)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	h, old := c.disk.get(id)
	if !old {
		h.since = time.Now()
	}
	cost := c.disk.cost(id)
	added := run(from, from+len(blocks)) &^ h.blocks
	h.blocks |= added
	h.known = h.known || !old
	if h.blocks == run(0, blocksOf(size)) {
		cost = diskCost(int64(size) + sums)
	} else {
		cost = min(diskCost(int64(size)+sums), cost+int64(bits.OnesCount64(uint64(added)))*blockSize+diskBlock)
	}
	c.disk.add(id, h, cost)
}

func (c *chunks) writeBlocks(id chunkID, size, from int, blocks [][]byte) error {
	name := c.file(id)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrNotExist) { // the first with that prefix
		if err = os.MkdirAll(filepath.Dir(name), 0o700); err == nil {
			f, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600)
		}
	}
	if err != nil {
		return err
	}
	defer f.Close()
	// With the length first, a file that has it is never taken for a torn one.
	n := blocksOf(size)
	if st, err := f.Stat(); err != nil {
		return err
	} else if end := int64(size + n*sumSize); st.Size() != end {
		if err := f.Truncate(end); err != nil {
			return err
		}
	}
	// Writing to room that is there already costs ext4 a fifth of what it
	// costs to find it page by page. Where that cannot be had, writing will do
	// it, or say why not.
	length := int64(0)
	for _, body := range blocks {
		length += int64(len(body))
	}
	_ = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, int64(from)*blockSize, length)
	var sums []byte
	for i, body := range blocks {
		sums = binary.BigEndian.AppendUint32(sums, checksum(id, from+i, body))
	}
	if err := c.write(f, blocks, int64(from)*blockSize); err != nil {
		return err
	}
	return c.write(f, [][]byte{sums}, int64(size+from*sumSize))
}

// writeParts writes all at once, which costs the kernel half as much as block
// by block.
func writeParts(f *os.File, parts [][]byte, off int64) error {
	want := 0
	for _, p := range parts {
		want += len(p)
	}
	n, err := unix.Pwritev(int(f.Fd()), parts, off)
	if err == nil && n < want {
		err = io.ErrShortWrite
	}
	return err
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
