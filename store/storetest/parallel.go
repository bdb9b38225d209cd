package storetest

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync"

	"github.com/keifs/keifs/store"
)

// parallels are the promises to many callers at once.
func parallels() []test {
	return []test{
		{name: "a reader sees nothing of renames, attributes and flushes of this volume", run: func(e *env) {
			want := strings.Repeat("0123456789", 500)
			e.put(e.tree, "a", want)
			var wg sync.WaitGroup
			done := make(chan struct{})
			for range 3 {
				f := e.openRead(e.tree, "a")
				wg.Go(func() {
					for {
						select {
						case <-done:
							if err := f.Close(e.ctx); err != nil {
								e.t.Error(err)
							}
							return
						default:
						}
						if s, err := readAll(e.ctx, f); err != nil || s != want {
							e.t.Errorf("%d bytes, %v", len(s), err)
							<-done
							return
						}
					}
				})
			}
			names := []string{"a", "b"}
			for i := range 20 {
				e.ok(e.rename(e.tree, names[i%2], names[(i+1)%2], store.Replace))
				if metadata(e.raw.Caps()) {
					e.setAttr(e.tree, names[(i+1)%2], store.AttrChange{Mode: new(uint32(0o600 + i))})
				}
				if i == 10 { // from here on the content is that of a writer
					f := e.openFile(e.tree, names[(i+1)%2])
					e.write(f, 0, "0")
					e.close(f)
				}
			}
			close(done)
			wg.Wait()
		}},
		{name: "everybody at once, and nothing is lost, torn or stuck", run: func(e *env) {
			const workers, rounds = 6, 25
			for _, dir := range []string{"x", "y", "shared"} {
				e.mkdir(e.tree, dir)
			}
			var wg sync.WaitGroup
			contents := make([]string, workers)
			for w := range workers {
				wg.Go(func() { contents[w] = e.worker(w, rounds) })
			}
			wg.Go(func() {
				for i := range rounds {
					from, to := "x", "z"
					if i%2 == 1 {
						from, to = to, from
					}
					if err := e.rename(e.tree, from, to, store.Replace); err != nil {
						e.t.Error(err)
					}
					if err := e.vol.Sync(e.ctx); err != nil {
						e.t.Error(err)
					}
					e.pending()
				}
			})
			wg.Wait()
			e.remount()
			for w, want := range contents {
				equal(e, "content", e.get(e.tree, "y/own"+itoa(w)), want)
			}
			equal(e, "pending", len(e.pending()), 0)
			for _, entry := range e.list(e.tree, "shared") {
				s := e.get(e.tree, "shared/"+entry.Name)
				if s != "" && s != strings.Repeat(s[:1], len(s)) {
					e.t.Errorf("%s is torn: %q", entry.Name, s)
				}
			}
			for _, key := range e.keys("main/") {
				if strings.Contains(key, ".conflict-") {
					e.t.Errorf("conflict with nobody: %s", key)
				}
			}
		}},
	}
}

// worker changes a file of its own, whose content it returns, and others that
// all workers change, replace and remove.
func (e *env) worker(w, rounds int) string {
	rnd := rand.New(rand.NewPCG(uint64(w), 1))
	letter := string(rune('A' + w))
	content := ""
	check := func(err error, allowed ...error) bool {
		for _, a := range allowed {
			if errors.Is(err, a) {
				return false
			}
		}
		if err != nil {
			e.t.Errorf("worker %d: %v", w, err)
		}
		return err == nil
	}
	for range rounds {
		// Its own, by a handle of each round, and by way of another name.
		name := "y/own" + itoa(w)
		f, err := e.tree.Create(e.ctx, e.path(name+".tmp"), fileAttr, rnd.IntN(2) == 0)
		if !check(err) {
			return content
		}
		content = strings.Repeat(letter, 1+rnd.IntN(100))
		_, err = f.WriteAt(e.ctx, []byte(content), 0)
		check(err)
		if rnd.IntN(2) == 0 {
			check(f.Flush(e.ctx))
		}
		check(e.tree.Rename(e.ctx, e.path(name+".tmp"), e.path(name), store.Replace))
		_, err = f.WriteAt(e.ctx, []byte(letter), -1)
		check(err)
		content += letter
		check(f.Flush(e.ctx))
		check(f.Close(e.ctx))

		// Everybody's: whole contents only, so that none may be torn.
		shared := "shared/" + itoa(rnd.IntN(3))
		switch rnd.IntN(3) {
		case 0:
			tmp := shared + ".of" + letter
			f, err := e.tree.Create(e.ctx, e.path(tmp), fileAttr, false)
			if check(err) {
				_, err := f.WriteAt(e.ctx, []byte(strings.Repeat(letter, 50)), 0)
				check(err)
				check(f.Close(e.ctx))
				check(e.tree.Rename(e.ctx, e.path(tmp), e.path(shared), store.Replace))
			}
		case 1:
			check(e.tree.Remove(e.ctx, e.path(shared)), store.ErrNotExist)
		case 2:
			f, err := e.tree.Open(e.ctx, e.path(shared), store.OpenFlags{})
			if check(err, store.ErrNotExist) {
				s, err := readAll(e.ctx, f)
				if check(err) && s != "" && s != strings.Repeat(s[:1], len(s)) {
					e.t.Errorf("read %q", s)
				}
				check(f.Close(e.ctx))
			}
		}
		// Below the directory that moves, and what lists.
		f, err = e.tree.Create(e.ctx, e.path("x/"+letter), fileAttr, false)
		if check(err, store.ErrNotExist) {
			_, err := f.WriteAt(e.ctx, []byte(letter), 0)
			check(err)
			check(f.Flush(e.ctx))
			check(f.Close(e.ctx))
		}
		for _, err := range e.tree.List(e.ctx, e.path("shared")) {
			check(err)
		}
	}
	return content
}
