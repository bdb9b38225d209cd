package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// The control socket of a mount speaks HTTP: GET /status answers mountStatus
// (with ?branches=1 their names, which may ask the store), POST /unmount
// answers when everything is in the bucket and the mount has ended, or a
// report of why it stays; POST /sync?path=P when what is at and below that path
// of the mount is in the bucket; POST /refresh?path=P when all that was remembered
// of it is forgotten; POST /warm?path=P&data=1 as lines of progress, the last of
// them when all is known; POST /branch?name=N&from=REV when the branch is made,
// POST /drop?name=N when it is deleted (with &committed=ID only if it has nothing
// that this commit has not); POST /materialize?name=N when it has objects of its
// own; GET /branches where all stand.

// socketPath is the control socket of the mount at dir.
func socketPath(folder, dir string) string {
	return filepath.Join(folder, shortName(dir)+".sock")
}

// socketsLock is held, for moments only, by who makes a socket or removes a
// stale one.
const socketsLock = "lock"

// listenControl binds a control socket. One that nobody listens on is removed
// first.
func listenControl(path string) (*net.UnixListener, error) {
	unlock, err := lock(filepath.Dir(path), socketsLock)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if pid, err := dialControl(path).pid(); err == nil {
		return nil, fail(exitDir, "another keifs (process %d) still has this directory: it is mounting, or publishing what was written", pid)
	} else if errors.Is(err, unix.ECONNREFUSED) {
		if err := os.Remove(path); err != nil {
			return nil, fail(exitSystem, "control socket: %w", err)
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fail(exitSystem, "control socket: %w", err)
	}
	return l, nil
}

// control serves the socket of a session.
type control struct {
	http *http.Server
	log  *slog.Logger
}

func serveControl(l *net.UnixListener, s *session) *control {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, s.status(r.Context(), r.FormValue("branches") != ""))
	})
	mux.HandleFunc("POST /unmount", func(w http.ResponseWriter, r *http.Request) {
		err := s.unmount(r.Context())
		if err == nil {
			<-s.ended
			err = s.err
		}
		if err != nil {
			answer(w, http.StatusConflict, report{Error: oneLine(err), Status: exitStatus(err)})
			return
		}
		answer(w, http.StatusOK, report{Dir: s.dir})
	})
	mux.HandleFunc("POST /sync", func(w http.ResponseWriter, r *http.Request) {
		answerReport(w, s.dir, s.sync(r.Context(), r.FormValue("path")))
	})
	mux.HandleFunc("POST /refresh", func(w http.ResponseWriter, r *http.Request) {
		answerReport(w, s.dir, s.server.Refresh(r.FormValue("path")))
	})
	mux.HandleFunc("POST /warm", s.warm)
	mux.HandleFunc("POST /branch", func(w http.ResponseWriter, r *http.Request) {
		answerReport(w, s.dir, s.fork(r.Context(), r.FormValue("name"), r.FormValue("from")))
	})
	mux.HandleFunc("POST /drop", func(w http.ResponseWriter, r *http.Request) {
		answerReport(w, s.dir, s.drop(r.Context(), r.FormValue("name"), r.FormValue("committed")))
	})
	mux.HandleFunc("POST /materialize", func(w http.ResponseWriter, r *http.Request) {
		answerReport(w, s.dir, materializeBranch(r.Context(), s.store, s.back, r.FormValue("name")))
	})
	mux.HandleFunc("GET /branches", func(w http.ResponseWriter, r *http.Request) {
		all, err := s.standings(r.Context())
		answer(w, http.StatusOK, standingsAnswer{reportOf(s.dir, err), all})
	})
	c := &control{&http.Server{Handler: mux}, s.log}
	go func() {
		if err := c.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			c.log.Error("control socket: umount and status will not find this mount", "err", err)
		}
	}()
	return c
}

// answerReport says that something is done, or why not.
func answerReport(w http.ResponseWriter, dir string, err error) {
	status := http.StatusOK
	if err != nil {
		status = http.StatusConflict
	}
	answer(w, status, reportOf(dir, err))
}

func reportOf(dir string, err error) report {
	if err != nil {
		return report{Error: oneLine(err), Status: exitStatus(err)}
	}
	return report{Dir: dir}
}

// err is the error that is reported.
func (r report) err() error {
	if r.Error == "" {
		return nil
	}
	return &failure{r.Status, errors.New(r.Error)}
}

func answer(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintln(w, string(text))
}

// close removes the socket, after the answers that are on their way.
func (c *control) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := c.http.Shutdown(ctx); err != nil {
		c.log.Warn("control socket closed", "err", err)
	}
}

// controlClient talks to one control socket.
type controlClient struct {
	path string
	http *http.Client
}

func dialControl(path string) controlClient {
	return controlClient{path, &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}}
}

// findControl looks for the live control socket of the mount at dir, by a user.
func findControl(dir string, uid int) (controlClient, bool) {
	for _, folder := range runtimeDirs(uid) {
		c := dialControl(socketPath(folder, dir))
		if checkPrivate(folder, uid) != nil {
			continue
		}
		if _, err := c.pid(); err == nil {
			return c, true
		}
	}
	return controlClient{}, false
}

// pid is the process that listens. The error is that of connect(2).
func (c controlClient) pid() (int, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: c.path, Net: "unix"})
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	ctlErr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(ctlErr, err); err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

// status asks the daemon how it is.
func (c controlClient) status(ctx context.Context, branches bool) (st mountStatus, err error) {
	url := "http://keifs/status"
	if branches {
		url += "?branches=1"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return st, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return st, err
	}
	defer resp.Body.Close()
	return st, json.NewDecoder(resp.Body).Decode(&st)
}

// unmount asks the daemon to publish what is pending and to unmount, and
// returns when its process has ended.
func (c controlClient) unmount(ctx context.Context) error {
	pid, err := c.pid()
	if err != nil {
		return err
	}
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(process)
	if err := c.ask(ctx, "/unmount"); err != nil {
		return err
	}
	return waitProcess(ctx, process)
}

// sync asks the daemon to put what is at and below a path of its mount into the
// bucket, and returns when it is there.
func (c controlClient) sync(ctx context.Context, path string) error {
	return c.ask(ctx, "/sync?path="+query(path))
}

// query is a value as it stands in a URL.
func query(s string) string { return url.QueryEscape(s) }

// ask sends a request that is answered by a report.
func (c controlClient) ask(ctx context.Context, what string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://keifs"+what, nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var rep report
	if err := json.NewDecoder(resp.Body).Decode(&rep); err != nil {
		return err
	}
	return rep.err()
}

// waitProcess waits for the end of the process that a pidfd stands for.
func waitProcess(ctx context.Context, pidfd int) error {
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 100)
		if n > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return ctx.Err()
}

// sockets lists the live control sockets of this user and removes the stale
// ones that a killed daemon left.
func sockets() []controlClient {
	var live []controlClient
	uid := os.Geteuid()
	for _, folder := range runtimeDirs(uid) {
		if checkPrivate(folder, uid) != nil {
			continue
		}
		unlock, err := lock(folder, socketsLock)
		if err != nil {
			continue
		}
		paths, _ := filepath.Glob(filepath.Join(folder, "*.sock"))
		for _, path := range paths {
			c := dialControl(path)
			_, err := c.pid()
			switch {
			case err == nil:
				live = append(live, c)
			case errors.Is(err, unix.ECONNREFUSED):
				if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
					continue
				}
			}
		}
		unlock()
	}
	return live
}
