/* The module inf_llm.native._sketch: `variants` names the functions of sketch.c for each kind of
   processor that this one can stand for, the fastest first. */

#include "sketch.h"

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
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512vnni") && add(variants, &sketch_avx512))
        return 1;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        add(variants, &sketch_avx2))
        return 1;
#endif
    return add(variants, &sketch_baseline);
}

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, .m_name = "_sketch"};

PyMODINIT_FUNC PyInit__sketch(void)
{
    PyObject *module = PyModule_Create(&MODULE), *variants = PyDict_New();
    if (!module || !variants || add_all(variants) ||
        PyModule_AddObjectRef(module, "variants", variants))
        Py_CLEAR(module);
    Py_XDECREF(variants);
    return module;
}
