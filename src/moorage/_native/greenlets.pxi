# Greenlets: the part of greenlet's C API that a loop needs.
#
# Owns      the pointers into greenlet, which are looked up when the first loop is made: `import moorage` needs no
#           greenlet, and the extension is built without its header.
# Promises  true argument types; NULL with the exception set, which the caller passes on with `return -1`.

from cpython.object cimport PyObject

cdef extern from "Python.h":
    void *PyCapsule_Import(const char *name, int no_block) except NULL
    void Py_INCREF "Py_INCREF" (PyObject *)
    void Py_DECREF "Py_DECREF" (PyObject *)
    void Py_CLEAR "Py_CLEAR" (PyObject *)
    unsigned long PyThread_get_thread_ident()

ctypedef PyObject *(*greenlet_current_t)() noexcept
ctypedef PyObject *(*greenlet_switch_t)(PyObject *greenlet, PyObject *args, PyObject *kwargs) noexcept
ctypedef int (*greenlet_is_t)(PyObject *greenlet) noexcept

# greenlet.h: places in the table that the capsule `greenlet._C_API` points to
cdef enum:
    GET_CURRENT = 4
    SWITCH = 6
    STARTED = 9
    ACTIVE = 10

cdef greenlet_current_t greenlet_current = NULL  # a new reference
cdef greenlet_switch_t greenlet_switch = NULL  # takes NULL for "no arguments"; a new reference
cdef greenlet_is_t greenlet_is_started = NULL
cdef greenlet_is_t greenlet_is_active = NULL


cdef int load_greenlet() except -1:
    """Raises ImportError where greenlet is missing."""
    global greenlet_current, greenlet_switch, greenlet_is_started, greenlet_is_active
    import greenlet  # whose ModuleNotFoundError names it

    cdef void **table = <void **> PyCapsule_Import("greenlet._C_API", 0)
    greenlet_current = <greenlet_current_t> table[GET_CURRENT]
    greenlet_switch = <greenlet_switch_t> table[SWITCH]
    greenlet_is_started = <greenlet_is_t> table[STARTED]
    greenlet_is_active = <greenlet_is_t> table[ACTIVE]
    return 0
