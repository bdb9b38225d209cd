package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func mountCommand(sh *shared) *cobra.Command {
	s := newSettings(sh)
	var lists []string
	var ready int
	cmd := &cobra.Command{
		Use:   "mount [STORE] DIR",
		Short: "Mount a store on a directory",
		Long: `Mount a store on a directory; returns when it is mounted, and the exit status
says whether it is.

STORE is one of these, of which the prefix can be left out:

` + storeForms() + `

Without it, the embedded store below $XDG_DATA_HOME/keifs is mounted, with a
branch "main" made on first use; DIR is then made where it is missing. DIR must
be an empty directory.

Every option can come from a flag, -o, the environment (KEIFS_CACHE_DIR for
--cache-dir) or the configuration file; the first of these that has it counts.`,
		Args: between(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			m := mounting{settings: s, dir: args[len(args)-1], embedded: len(args) == 1}
			if m.embedded && (strings.Contains(m.dir, ":/") || strings.HasPrefix(m.dir, "mem:")) {
				return usageError("no directory given: keifs mount %s DIR", m.dir)
			}
			if m.dir == "" {
				return usageError("no directory given: %s", cmd.UseLine())
			}
			if m.embedded {
				m.url = "file://" + filepath.Join(dataHome(), "keifs", "store")
			} else {
				m.url = args[0]
			}
			options, err := s.parseMountOptions(lists)
			if err != nil {
				return err
			}
			m.kernel = options.flags
			if err := checkURL(m.url); err != nil {
				return err
			}
			if err := s.resolve(m.url, options.values, os.Getenv); err != nil {
				return err
			}
			if s.writeBack && s.cache.value == "off" {
				return usageError("--write-back keeps on the local disk what the bucket does not have yet: it cannot go with --cache off")
			}
			switch {
			case ready >= 0:
				return m.daemon(ready)
			case s.foreground:
				return m.foreground(cmd.ErrOrStderr())
			}
			return m.background(cmd.OutOrStdout(), asMount(cmd.Root(), os.Args[1:]))
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().AddFlagSet(s.flags)
	cmd.Flags().StringArrayVarP(&lists, "options", "o", nil, "mount `options` as mount(8) passes them: ro,noexec,allow_other,endpoint=…")
	cmd.Flags().IntVar(&ready, "ready-fd", -1, "where a daemon reports that it has mounted")
	cmd.Flags().Lookup("ready-fd").Hidden = true
	return cmd
}

// mounting is what the mount command was asked to do.
type mounting struct {
	*settings
	url      string
	embedded bool
	dir      string   // resolved once prepare has run
	kernel   []string // nodev, noexec, …
	logPath  string   // empty: standard error of a foreground mount
}

// foreground mounts in this process and returns after the unmount.
func (m *mounting) foreground(stderr io.Writer) error {
	if m.logFile != "" {
		f, err := m.openLog()
		if err != nil {
			return err
		}
		defer f.Close()
		stderr = f
	}
	return m.run(stderr, func() error { return nil })
}

// run mounts, calls ready, and returns when everything is unmounted and
// published. Until then the first SIGINT, SIGTERM or SIGHUP asks for just
// that, the second for an end without waiting, and the third is death.
func (m *mounting) run(logTo io.Writer, ready func() error) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(m.logLevel.value)); err != nil {
		return usageError("log-level: %w", err)
	}
	log := slog.New(slog.NewTextHandler(logTo, &slog.HandlerOptions{Level: level}))

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer signal.Stop(signals)
	signal.Ignore(unix.SIGPIPE) // whoever read the log may leave
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	opened, heard := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(heard)
		select {
		case sig := <-signals:
			cancel(fmt.Errorf("interrupted (%v) before anything was mounted", sig))
		case <-opened:
		}
	}()
	s, err := m.open(ctx, log)
	close(opened)
	<-heard
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return err
	}
	if ctx.Err() != nil { // interrupted when it had just been mounted
		again(signals)
	}
	if err := ready(); err != nil {
		s.log.Error("nobody waits for this mount any more", "err", err)
		again(signals)
	}
	return s.serve(signals)
}

// again has the end asked for, where a signal has not done so.
func again(signals chan os.Signal) {
	select {
	case signals <- unix.SIGTERM:
	default:
	}
}

// open does everything up to the mount, cheapest checks first, and leaves
// nothing behind when it fails.
func (m *mounting) open(ctx context.Context, log *slog.Logger) (_ *session, err error) {
	if err := checkSystem(m.allowOther); err != nil {
		return nil, err
	}
	ctl, err := m.claim()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ctl.Close())
		}
	}()
	st, err := openStack(ctx, m, log)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(err, st.close(ctx))
	}
	server, err := st.mount(m, log)
	if err != nil {
		return nil, errors.Join(err, st.close(ctx))
	}
	// From here on no folder but the mount's own is in use.
	if err := os.Chdir("/"); err != nil {
		log.Warn("cannot leave the working directory", "err", err)
	}
	log.Info("mounted", "store", st.name, "dir", m.dir, "version", version())
	s := &session{
		stack: st, server: server, dir: m.dir, logPath: m.logPath, log: log, started: time.Now(),
		gone: make(chan struct{}), ended: make(chan struct{}), turn: make(chan struct{}, 1),
	}
	s.control = serveControl(ctl, s)
	return s, nil
}

// checkPaths refuses what would make a mount wait for itself: its cache, its
// log or its store inside the directory that it covers. It chooses the cache's
// folder and makes the paths absolute, as the daemon leaves its working
// directory.
func (m *mounting) checkPaths() error {
	switch {
	case m.cache.value == "off":
		m.cacheDir = ""
	case m.cacheDir == "":
		m.cacheDir = filepath.Join(cacheHome(), "keifs", shortName(m.url, m.dir))
	}
	store := filePath(m.url)
	for what, path := range map[string]*string{"cache": &m.cacheDir, "log file": &m.logFile, "store": &store} {
		if *path == "" {
			continue
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = abs
		if real, err := filepath.EvalSymlinks(abs); err == nil {
			abs = real
		}
		if within(abs, m.dir) || what == "store" && within(m.dir, abs) {
			return fail(exitDir, "the %s %s cannot lie inside the mount, or the mount in it: %s", what, *path, m.dir)
		}
	}
	return nil
}
