/* The module inf_llm.native._loops: `variants` has the functions of loops.c for each kind of
   processor that this processor can run, the fastest first. */

#include "loops.h"

static int add(PyObject *variants, struct PyModuleDef *definition)
{
    PyObject *functions = PyModule_Create(definition);
    int failed = !functions || PyDict_SetItemString(variants, definition->m_name, functions);
    Py_XDECREF(functions);
    return failed;
}

static int add_all(PyObject *variants)
{
#ifdef SEVERAL_PROCESSORS
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        add(variants, &loops_avx2))
        return 1;
#endif
    return add(variants, &loops_baseline);
}

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, .m_name = "_loops"};

PyMODINIT_FUNC PyInit__loops(void)
{
    PyObject *module = PyModule_Create(&MODULE), *variants = PyDict_New();
    if (!module || !variants || add_all(variants) ||
        PyModule_AddObjectRef(module, "variants", variants))
        Py_CLEAR(module);
    Py_XDECREF(variants);
    return module;
}
