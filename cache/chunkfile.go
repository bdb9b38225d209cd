package cache

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The file of a chunk is named by its ID. It has the blocks, each at its place,
// and then for each a CRC-32C of ID, number and bytes, or 0 where the block is
// not there.

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

// readPart fills p from blocks that are known to be whole.
func (c *chunks) readPart(id chunkID, p []byte, off int64) error {
	f, err := os.Open(c.file(id))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.ReadAt(p, off)
	return err
}

// openChunk opens the file of a chunk for writing.
func (c *chunks) openChunk(id chunkID) (*os.File, error) {
	name := c.file(id)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrNotExist) { // the first with that prefix
		if err = os.MkdirAll(filepath.Dir(name), 0o700); err == nil {
			f, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600)
		}
	}
	return f, err
}

// writeBlocks writes to the file of a chunk, and returns which one that is.
func (c *chunks) writeBlocks(f *os.File, id chunkID, size, from int, blocks []*block, direct bool) (fs.FileInfo, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	// With the length first, a file that has it is never taken for a torn one.
	if end := int64(size + blocksOf(size)*sumSize); st.Size() != end {
		if err := f.Truncate(end); err != nil {
			return nil, err
		}
	}
	var bodies [][]byte
	var sums []byte
	length := int64(0)
	for i, b := range blocks {
		bodies = append(bodies, b.data)
		sums = binary.BigEndian.AppendUint32(sums, b.checksum(id, from+i))
		length += int64(len(b.data))
	}
	// Writing to room that is there already costs ext4 a fifth of what it
	// costs to find it page by page. Where that cannot be had, writing will do
	// it, or say why not.
	off := int64(from) * blockSize
	_ = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, off, length)
	if direct {
		n, err := c.writeDirect(f, bodies, off)
		if err != nil {
			return nil, err
		}
		bodies, off = bodies[n:], off+int64(n)*blockSize
	}
	if len(bodies) > 0 {
		if err := c.write(f, bodies, off); err != nil {
			return nil, err
		}
	}
	return st, c.write(f, [][]byte{sums}, int64(size+from*sumSize))
}

// writeDirect writes as many of the blocks, the first ones, as it can past the
// kernel's cache: copying them there costs more than all else that is done
// with them, and who reads them has them in the cache of the mount. The rest is
// left to be written as usual.
func (c *chunks) writeDirect(f *os.File, bodies [][]byte, off int64) (n int, err error) {
	for n < len(bodies) && len(bodies[n]) == blockSize {
		n++
	}
	if n == 0 {
		return 0, nil
	}
	if err = setDirect(f, true); err == nil {
		err = c.write(f, bodies[:n], off)
		if e := setDirect(f, false); e != nil {
			return 0, e
		}
	}
	if errors.Is(err, unix.EINVAL) { // not on this disk, or not from there
		n, err = 0, nil
	}
	return n, err
}

func setDirect(f *os.File, on bool) error {
	flags := 0
	if on {
		flags = unix.O_DIRECT
	}
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETFL, flags)
	return err
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
