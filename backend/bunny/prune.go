package bunny

import (
	"context"
	"net/http"
	"strings"
	"sync"

	"github.com/keifs/keifs/backend"
)

// prune removes a directory that has no file in it, if it is there. The store
// would remove any, so that nobody of this process writes into it meanwhile;
// that another process does not is what one writer means.
func (z *zone) prune(ctx context.Context, op, dir string) (pruned bool, err error) {
	leave, alone := z.gate.remove(dir)
	if !alone {
		return false, nil // it is about to have a file
	}
	defer leave()
	there, holds, err := z.holds(ctx, op, dir)
	if err != nil || !there || holds {
		return false, err
	}
	_, err = z.ask(ctx, op, dir, http.MethodDelete, z.prefix+dir, nil)
	if backend.Retryable(err) || ctx.Err() != nil {
		return false, err
	}
	return err == nil, nil // nobody sees a directory without files
}

// holds says whether a directory is there, and whether there is a file below it.
func (z *zone) holds(ctx context.Context, op, dir string) (there, file bool, err error) {
	entries, _, err := z.list(ctx, op, dir)
	if err != nil || entries == nil {
		return false, false, err
	}
	for _, e := range entries {
		if !e.IsDirectory {
			return true, true, nil
		}
	}
	for _, e := range entries {
		if _, file, err := z.holds(ctx, op, dir+e.ObjectName+"/"); err != nil || file {
			return true, file, err
		}
	}
	return true, false, nil
}

// gate keeps a directory from being removed while a file is put into it, and
// lets a file wait for the removal of a directory above it.
type gate struct {
	mu       sync.Mutex
	writing  map[string]int           // by key
	removing map[string]chan struct{} // by directory; closed at the end
}

// write waits until no directory above key is being removed. It ends with leave.
func (g *gate) write(ctx context.Context, key string) (leave func(), err error) {
	for {
		ended := g.enter(key)
		if ended == nil {
			return func() { g.left(key) }, nil
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// enter returns the end to wait for; nil when the key is entered.
func (g *gate) enter(key string) chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	for dir, ended := range g.removing {
		if strings.HasPrefix(key, dir) {
			return ended
		}
	}
	if g.writing == nil {
		g.writing = map[string]int{}
	}
	g.writing[key]++
	return nil
}

func (g *gate) left(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.writing[key]--; g.writing[key] == 0 {
		delete(g.writing, key)
	}
}

// remove enters the removal of a directory, which ends with leave. It is not
// alone where files are being put there, or where it is being removed already.
func (g *gate) remove(dir string) (leave func(), alone bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key := range g.writing {
		if strings.HasPrefix(key, dir) {
			return nil, false
		}
	}
	if g.removing[dir] != nil {
		return nil, false
	}
	if g.removing == nil {
		g.removing = map[string]chan struct{}{}
	}
	ended := make(chan struct{})
	g.removing[dir] = ended
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.removing, dir)
		close(ended)
	}, true
}
