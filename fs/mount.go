// Package fs shows a [store.Volume] as a directory of this machine, through
// FUSE. What it promises to programs is in SEMANTICS.md.
//
// The types to know are [Server], a mount; node, what all nodes of the tree
// share, with dirNode, fileNode and linkNode around it; handle, an open file;
// and places, which knows the path of every node.
//
// No type of go-fuse leaves this package.
package fs

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/keifs/keifs/store"
)

// Options of Mount. The zero value is usable.
type Options struct {
	// Source is what the mount table shows as the device; the store's URL.
	Source     string
	ReadOnly   bool
	AllowOther bool // other users than the one who mounts

	// TTL is for how long the kernel may rely on names and attributes that it
	// was told; default 1 s, negative not at all.
	TTL time.Duration

	// Inodes is how many files and directories the kernel may know before it is
	// asked to forget those that it learnt of first and does not need; default
	// 100,000, negative any number. Each takes 0.7 KiB of memory here.
	Inodes int

	UID, GID uint32 // owner of the root

	// MountOptions are further options as in mount -o: those for every
	// filesystem ("noatime", "noexec", "rw", …), and those of FUSE.
	MountOptions []string

	Logger *slog.Logger
	Debug  bool // log every request

	patience time.Duration // of tests; default defaultPatience
	old      bool          // of tests: the kernel is one before 6.18
}

// Server is a mount.
type Server struct {
	fuse *fuse.Server
	m    *mounted
	done chan struct{}
}

// mounted is what all nodes of a mount share.
type mounted struct {
	vol      store.Volume
	log      *slog.Logger
	ttl      time.Duration
	patience time.Duration
	uid      uint32
	gid      uint32
	places   *places
	numbers  *numbers
	since    time.Time // when it was mounted
	retries  retries
	root     *dirNode
	kernel   *kernel
	ending   atomic.Bool // an unmount has begun: no more notifications

	mu   sync.Mutex
	open map[*handle]struct{}
}

// Mount mounts vol on dir, which must be a directory, and returns when it can
// be used. The caller closes vol, after Wait.
func Mount(dir string, vol store.Volume, opts Options) (*Server, error) {
	m := newMounted(vol, opts)
	fuseOpts, err := mountOptions(opts, os.Geteuid() == 0)
	if err != nil {
		return nil, err
	}
	logLevel := slog.LevelInfo
	if opts.Debug {
		logLevel = slog.LevelDebug
	}
	fuseOpts.Logger = slog.NewLogLogger(m.log.Handler(), logLevel)
	fuseOpts.PanicHandler = m.panicked

	raw := gofs.NewNodeFS(m.root, &gofs.Options{
		EntryTimeout: &m.ttl,
		AttrTimeout:  &m.ttl,
		// No NegativeTimeout: that a name is not there is asked every time. It
		// may have been made on another host, and the volume remembers as well.
		NullPermissions: true,
		RootStableAttr:  &gofs.StableAttr{Ino: rootNumber},
		Logger:          fuseOpts.Logger,
	})
	server, err := fuse.NewServer(raw, dir, fuseOpts)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	s := &Server{fuse: server, m: m, done: make(chan struct{})}
	if v, ok := vol.(store.Refresher); ok {
		v.Notice(m.kernel.notice)
	}
	go m.kernel.run()
	go s.serve()
	if err := server.WaitMount(); err != nil {
		return nil, errors.Join(fmt.Errorf("mount %s: %w", dir, err), s.Unmount())
	}
	m.raiseReadAhead(dir)
	return s, nil
}

func newMounted(vol store.Volume, opts Options) *mounted {
	m := &mounted{
		vol: vol, log: opts.Logger, ttl: opts.TTL, uid: opts.UID, gid: opts.GID,
		places: newPlaces(vol.Root()), numbers: newNumbers(), since: time.Now(), open: map[*handle]struct{}{},
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if m.patience = opts.patience; m.patience == 0 {
		m.patience = defaultPatience
	}
	m.root, m.kernel = &dirNode{node: node{m: m, number: rootNumber}}, newKernel(m, opts)
	switch {
	case m.ttl == 0:
		m.ttl = time.Second
	case m.ttl < 0:
		m.ttl = 0
	}
	return m
}

func (s *Server) serve() {
	s.fuse.Serve()
	s.m.ending.Store(true)
	s.m.kernel.close()
	s.m.closeHandles()
	close(s.done)
}

// Wait returns when the directory is unmounted, by whomever, and all files
// that were open are closed.
func (s *Server) Wait() { <-s.done }

// Unmount unmounts the directory and waits as Wait does. It fails where the
// directory is in use; the mount goes on then.
func (s *Server) Unmount() error {
	s.m.ending.Store(true)
	if err := s.fuse.Unmount(); err != nil {
		s.m.ending.Store(false)
		return fmt.Errorf("unmount: %w", err)
	}
	<-s.done
	return nil
}

// closeHandles closes what the kernel did not: at an unmount it forgets to say
// so of files closed a moment before.
func (m *mounted) closeHandles() {
	m.mu.Lock()
	open := m.open
	m.open = map[*handle]struct{}{}
	m.mu.Unlock()
	for h := range open {
		h.close()
	}
}

const (
	maxRequest    = 1 << 20 // bytes of one read or write
	maxBackground = 128     // reads ahead and other requests that nobody waits for
)

// mountOptions translates Options. Root mounts by itself; others need
// fusermount3, which knows all options.
func mountOptions(opts Options, root bool) (*fuse.MountOptions, error) {
	o := &fuse.MountOptions{
		FsName:            opts.Source,
		Name:              "keifs",
		AllowOther:        opts.AllowOther,
		Options:           []string{"default_permissions"},
		MaxWrite:          maxRequest,
		MaxBackground:     maxBackground,
		Debug:             opts.Debug,
		DirectMountStrict: root,
		// Reads answer with memory, which is not spliced.
		DisableSplice: true,
		// The kernel truncates with the open, and leaves it to this package
		// to drop set-uid bits, instead of asking for security attributes at
		// every write.
		//
		// A listing brings attributes along (READDIRPLUS) only where programs
		// ask for them, as each takes twenty times as long as a name.
		ExtraCapabilities: fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_READDIRPLUS_AUTO,
	}
	if o.FsName == "" {
		o.FsName = "keifs"
	}
	list := opts.MountOptions
	if opts.ReadOnly {
		list = append(slices.Clip(list), "ro")
	}
	flags := uintptr(syscall.MS_NOSUID | syscall.MS_NODEV)
	for _, opt := range list {
		switch flag, known := mountFlags[opt]; {
		case opt == "allow_other":
			o.AllowOther = true
		case opt == "default_permissions" || ignoredOptions[opt] || strings.HasPrefix(opt, "x-"):
		case strings.ContainsAny(opt, ",\x00") || opt == "":
			return nil, fmt.Errorf("mount option %q: not understood", opt)
		case known && root:
			flags |= flag
		default:
			o.Options = append(o.Options, opt)
		}
	}
	if root {
		o.DirectMountFlags = flags
	}
	return o, nil
}

// mountFlags are options that mount(2) takes as bits. go-fuse itself knows dev,
// suid, exec and their opposites, and the kernel ro, rw, sync and async.
var mountFlags = map[string]uintptr{
	"noatime":     syscall.MS_NOATIME,
	"nodiratime":  syscall.MS_NODIRATIME,
	"relatime":    syscall.MS_RELATIME,
	"strictatime": syscall.MS_STRICTATIME,
}

// ignoredOptions are for mount(8) and init, or the default.
var ignoredOptions = map[string]bool{
	"defaults": true, "auto": true, "noauto": true, "user": true, "nouser": true, "users": true,
	"nofail": true, "_netdev": true, "atime": true, "diratime": true, "norelatime": true,
}

// raiseReadAhead lets the kernel read as far ahead as one request can be long.
// Only root may.
func (m *mounted) raiseReadAhead(dir string) {
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		m.log.Debug("no device number of the mount", "err", err)
		return
	}
	major := st.Dev >> 8 & 0xfff
	minor := st.Dev&0xff | st.Dev>>12&0xfff00
	name := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", major, minor)
	if err := os.WriteFile(name, fmt.Append(nil, maxRequest>>10), 0); err != nil {
		m.log.Debug("kernel reads ahead as far as by default", "err", err)
	}
}
