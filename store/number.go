package store

// FNV-1a, written out since names are hashed on top of their directory.
const (
	hashOffset = 14695981039346656037
	hashPrime  = 1099511628211
)

func hashOn(h uint64, s string) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * hashPrime
	}
	return h
}

// NumberDir begins the numbers of the names in a directory; Number ends them.
func NumberDir(branch, path string) uint64 {
	h := hashOn(hashOffset, branch)
	if path != "" {
		h = hashOn(h, "/"+path)
	}
	return h
}

// Number is the inode number of a name: the same in every mount. Programs read
// the files of a directory in this order when they mean to be kind to a disk.
func Number(dir uint64, name string) uint64 {
	h := hashOn(dir, "/"+name)
	// The low bits of FNV are its good ones; some programs read the number as signed.
	h ^= h >> 32
	return h &^ (1 << 63)
}
