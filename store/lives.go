package store

import (
	"strings"
	"time"
)

// A directory without a marker of its own exists by what is in it, and what
// removes an entry has to see to it that there is another, or a marker. How
// many can go without asking the bucket is remembered. That another host
// removes some too does no more harm than that an empty directory vanishes.

const (
	// maxLives bounds how many directories are remembered.
	maxLives = 1 << 14
	// forever is the number of entries that can go where there is a marker.
	forever = -1
)

// lives are the entries of a directory that can go.
type lives struct {
	left  int
	spent time.Time // when some went last
}

// spend says whether n entries of the directory can be removed without a look.
func (c *core) spend(dir string, n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lives[dir]
	l.spent = time.Now()
	enough := l.left == forever || l.left >= n
	if enough && l.left != forever {
		l.left -= n
	}
	c.keepLocked(dir, l)
	return enough
}

// noteMarker remembers that the directory has a marker.
func (c *core) noteMarker(dir string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keepLocked(dir, lives{left: forever})
}

// noteOthers remembers that the directory has no marker, and that many entries
// beside those that are about to go, as the bucket was asked then. One of them
// has to stay. Where some have gone since, it may be too many.
func (c *core) noteOthers(dir string, n int, asked time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lives[dir].spent.Before(asked) {
		c.keepLocked(dir, lives{left: max(n-1, 0)})
	}
}

func (c *core) keepLocked(dir string, l lives) {
	if _, ok := c.lives[dir]; !ok && len(c.lives) >= maxLives {
		clear(c.lives)
	}
	c.lives[dir] = l
}

// forget drops what is known of a directory.
func (c *core) forget(dir string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.lives, dir)
}

// forgetTree drops what is known of a directory and of all below it.
func (c *core) forgetTree(dir string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for d := range c.lives {
		if strings.HasPrefix(d, dir) {
			delete(c.lives, d)
		}
	}
}
